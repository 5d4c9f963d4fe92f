"""Run a transformer once and keep the attention of all layers, the tokens between them, and the graph to the logits."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from camlab.attribution.attention import AttentionRecorder
from camlab.attribution.classifier import Classifier
from camlab.attribution.forward_pass import ForwardPass
from camlab.attribution.hooks import first_tensor
from camlab.attribution.layouts import Layout
from camlab.attribution.network_input import check_logits
from camlab.attribution.survey import Survey
from camlab.errors import UserError

CUT = (
    "attention: no gradient reaches the attention of a layer; the network cuts the graph (detach, no_grad, gradient"
    " checkpointing)."
)


@dataclass(frozen=True)
class _Tokens:
    """The tokens that a module gives, and the attention that runs within it.

    Attributes:
        name: Name of the module.
        given: Its input; None if it has none of the same shape.
        first: Number of calls of attention before the module's call.
        end: Number of calls of attention at its end.
        tokens: Its output, N×T×D.
    """

    name: str
    given: Tensor | None
    first: int
    end: int
    tokens: Tensor


@dataclass(frozen=True)
class AttentionPass:
    """Results of one pass through a transformer; the tensors keep their graph.

    Attributes:
        images: The network's input, N×C×H×W.
        logits: The network's output, N×M.
        class_idx: The classes to explain, N×R.
        weights: Attention weights of each layer, N×E×T×T.
        pooling: Weights of attention that pools the tokens at the end, N×E×1×T; None if there is none.
        layout: Layout of the tokens.
        outputs: Tokens that modules give, in the order in which the modules end.
    """

    images: Tensor
    logits: Tensor
    class_idx: Tensor
    weights: Sequence[Tensor]
    pooling: Tensor | None
    layout: Layout
    outputs: Sequence[_Tokens]

    @property
    def where(self) -> str:
        """The layers whose attention is used, for captions."""
        names = [block.name for block in self.blocks()]
        return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"

    def detached(self) -> ForwardPass:
        """The logits and classes without a graph, as of a pass without target layers."""
        return ForwardPass(self.images, self.logits.detach(), self.class_idx, {}, {}, [])

    def blocks(self) -> list[_Tokens]:
        """For each layer of attention, the largest module that has this one alone."""
        found = {block.first: block for block in self.outputs if block.end - block.first == 1}  # the last one to end
        return [found[i] for i in range(len(self.weights)) if i in found]


def record_attention(
    classifier: Classifier,
    images: Tensor,
    survey: Survey,
    choose: Callable[[Tensor], Tensor],
    whole_graph: bool = False,
) -> AttentionPass:
    """Run a transformer once and keep its attention weights, with the graph that leads from them to the logits.

    Args:
        classifier: The network, in a context for passes (`camlab.attribution.hooks.passing`).
        images: Its input, N×C×H×W.
        survey: Survey of the network for images of this size.
        choose: Function that chooses the classes to explain from the logits, N×M → N×R.
        whole_graph: Enable gradients before the first attention, too.

    Raises:
        UserError: The network has no attention, or its attention is not between all tokens of one grid.
    """
    by_name = dict(classifier.network.named_modules())
    grids = {name: layout for name, layout in survey.layouts.items() if layout.order == "NLC"}
    inputs = images.clone() if images.is_inference() else images
    recorder, outputs = AttentionRecorder(), list[_Tokens]()
    grad_mode = torch.enable_grad() if whole_graph else torch.no_grad()
    with grad_mode, _recorded({name: by_name[name] for name in grids}, recorder, outputs), recorder:
        logits = classifier.logits(inputs)
    check_logits(logits)
    weights, pooling, layout = _checked(recorder.weights, len(images), grids, survey)
    if (not logits.requires_grad or recorder.begun > 1) and not whole_graph:  # parts of the network run in `no_grad`
        return record_attention(classifier, images, survey, choose, whole_graph=True)
    if not logits.requires_grad:
        raise UserError(CUT)
    kept = [output for output in outputs if output.tokens.shape[1] == layout.positions]
    passed = AttentionPass(inputs.detach(), logits, choose(logits), weights, pooling, layout, kept)
    if not _is_sequence(passed) or _has_other_blocks(passed, by_name, survey):
        raise UserError("the network's attention layers do not follow one another in a list of blocks.")
    return passed


def _is_sequence(passed: AttentionPass) -> bool:
    """Whether each layer of attention is in a block of its own, which is given the tokens of the block before."""
    blocks = passed.blocks()
    pairs = itertools.pairwise(blocks)
    return len(blocks) == len(passed.weights) and all(
        after.given is not None and torch.equal(after.given, before.tokens) for before, after in pairs
    )


def _has_other_blocks(passed: AttentionPass, modules: Mapping[str, nn.Module], survey: Survey) -> bool:
    """Whether a block of the same kind and place runs without attention that could be recorded."""
    names = {block.name for block in passed.blocks()}
    kinds, places = {type(modules[name]) for name in names}, {name.rpartition(".")[0] for name in names}
    run = {call.name for call in survey.calls}
    others = {name for name in run - names if name.rpartition(".")[0] in places}
    return any(type(modules[name]) in kinds for name in others)


def _checked(
    recorded: Sequence[Tensor], batch: int, grids: dict[str, Layout], survey: Survey
) -> tuple[list[Tensor], Tensor | None, Layout]:
    """Split the recorded weights into layers and pooling, and find the layout of their tokens."""
    if not recorded:
        raise UserError("the network has no attention whose weights can be recorded.")
    layouts = {layout.positions: layout for layout in grids.values()}
    layers, tokens = list(recorded), recorded[0].shape[-1]
    pooling = layers.pop() if len(layers) > 1 and layers[-1].shape[2:] == (1, tokens) else None
    square = all(weights.shape[0] == batch and weights.shape[2:] == (tokens, tokens) for weights in layers)
    if not square or tokens not in layouts:
        raise UserError(
            "the network's attention is not between all tokens of one grid (it has windows, stages or"
            " class-attention layers)."
        )
    return layers, pooling, layouts[tokens]


@contextmanager
def _recorded(modules: dict[str, nn.Module], recorder: AttentionRecorder, outputs: list[_Tokens]) -> Iterator[None]:
    """Append the tokens that modules give to `outputs`."""
    begun: dict[str, tuple[Tensor | None, int]] = {}

    def before(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[object, ...], named: dict[str, object]) -> None:
            given = next((value for value in (*inputs, *named.values()) if isinstance(value, Tensor)), None)
            begun[name] = given, len(recorder.weights)

        return hook

    def after(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            tokens = first_tensor(output)
            if tokens is not None:
                outputs.append(_Tokens(name, *begun[name], len(recorder.weights), tokens))

        return hook

    handles = [module.register_forward_pre_hook(before(name), with_kwargs=True) for name, module in modules.items()]
    handles += [module.register_forward_hook(after(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
