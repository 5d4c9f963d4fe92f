"""Compute the maps of the attention methods: record a transformer's attention and its gradients, and read out cells."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from camlab import maps
from camlab.attribution.attention import AttentionRecorder
from camlab.attribution.classifier import Classifier
from camlab.attribution.forward_pass import ForwardPass
from camlab.attribution.hooks import first_tensor, replaced
from camlab.attribution.layouts import Layout
from camlab.attribution.network_input import check_logits
from camlab.attribution.survey import Survey
from camlab.errors import UserError

_CUT = (
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
    if not logits.requires_grad and not whole_graph:  # the network runs a part of itself in `no_grad`
        return record_attention(classifier, images, survey, choose, whole_graph=True)
    if not logits.requires_grad:
        raise UserError(_CUT)
    kept = [output for output in outputs if output.tokens.shape[1] == layout.positions]
    passed = AttentionPass(inputs.detach(), logits, choose(logits), weights, pooling, layout, kept)
    if not _is_sequence(passed):
        raise UserError("attention: the network's attention layers do not follow one another in a list of blocks.")
    return passed


def _is_sequence(passed: AttentionPass) -> bool:
    """Whether each layer of attention is in a block of its own, which is given the tokens of the block before."""
    blocks = passed.blocks()
    pairs = itertools.pairwise(blocks)
    return len(blocks) == len(passed.weights) and all(
        after.given is not None and torch.equal(after.given, before.tokens) for before, after in pairs
    )


def relevance_maps(passed: AttentionPass, sign: int) -> Tensor:
    """Attention relevance of each cell for what the class score is computed from, N×R×h×w.

    The score is computed from the class token, from the mean of the tokens, or from attention that pools them. What it
    is computed from is found by the gradient: relevance is averaged over the tokens that the score depends on at the
    end. Each token's relevance for itself (R = 1 at the start) is left out.
    """
    ends = _ends(passed)
    ranks = []
    for score in _scores(passed):
        *gradients, of_ends = torch.autograd.grad(score, [*passed.weights, ends], retain_graph=True, allow_unused=True)
        relevance = maps.attention_relevance(
            [weights.detach() for weights in passed.weights], [sign * gradient for gradient in _uncut(gradients)]
        )
        relevance = relevance - torch.eye(relevance.shape[-1], device=relevance.device)
        readers = _readers(passed, of_ends, sign)
        with torch.autocast(relevance.device.type, enabled=False):
            read = readers @ relevance + (readers if passed.pooling is not None else 0)
        ranks.append(_cells(read[:, 0], passed.layout))
    return torch.stack(ranks, dim=1)


def _ends(passed: AttentionPass) -> Tensor:
    """What the scores are computed from: the pooling's attention, or the last tokens on which they depend.

    Raises:
        UserError: No score depends on tokens behind the last attention.
    """
    if passed.pooling is not None:
        return passed.pooling
    behind = [output.tokens for output in passed.outputs if output.end == len(passed.weights)]
    with torch.enable_grad():
        score = passed.logits.gather(1, passed.class_idx).sum()
    for tokens in reversed(behind):
        (gradient,) = torch.autograd.grad(score, tokens, retain_graph=True, allow_unused=True)
        if gradient is not None and gradient.any():
            return tokens
    raise UserError(
        "attention_relevance: no class score depends on the tokens (all gradients are zero). Are the weights of the"
        " last layer zero?"
    )


def _readers(passed: AttentionPass, gradients: Tensor, sign: int) -> Tensor:
    """Weight of each token in what the score is computed from, N×1×T.

    Args:
        passed: The pass.
        gradients: Gradient of the score with respect to the pooling's attention, or else to the last tokens.
        sign: -1 for counterfactuals.
    """
    if passed.pooling is not None:
        return (passed.pooling.detach().float() * sign * gradients.float()).relu().mean(dim=1)
    counted = (gradients != 0).any(dim=2).float()[:, None]
    return counted / counted.sum(dim=2, keepdim=True).clamp_min(1)


def legrad_maps(classifier: Classifier, passed: AttentionPass, sign: int) -> Tensor:
    """Maps of LeGrad, N×R×h×w.

    The score s^l of layer l is computed by a second pass in which the output of the last layer is replaced by the
    outputs of all layers, one behind the other in the batch.
    """
    blocks = passed.blocks()
    if not all(block.tokens.requires_grad for block in blocks):
        raise UserError(_CUT)
    last = dict(classifier.network.named_modules())[blocks[-1].name]
    outputs = torch.cat([block.tokens for block in blocks]).detach().requires_grad_()

    def of_all_layers(_: Tensor) -> Tensor:
        torch.set_grad_enabled(True)  # for the rest of the pass; `no_grad` restores the mode
        return outputs.clone()

    with torch.no_grad(), replaced(last, of_all_layers):
        logits = classifier.logits(passed.images, rows=len(outputs))
    if not logits.requires_grad:  # the network runs its blocks in `no_grad`, which has undone what the hook has set
        with torch.enable_grad(), replaced(last, of_all_layers):
            logits = classifier.logits(passed.images, rows=len(outputs))
    by_layer = logits.unflatten(0, (len(blocks), -1))
    ranks = []
    for classes in passed.class_idx.unbind(1):
        with torch.enable_grad():
            score = by_layer.gather(2, classes.expand(len(blocks), -1)[:, :, None]).sum()
        (of_outputs,) = torch.autograd.grad(score, outputs, retain_graph=True)
        found = [
            torch.autograd.grad(block.tokens, weights, of_output, retain_graph=True, allow_unused=True)[0]
            for block, weights, of_output in zip(blocks, passed.weights, of_outputs.chunk(len(blocks)), strict=True)
        ]
        gradients = [sign * gradient for gradient in _uncut(found)]
        if not any(gradient.any() for gradient in gradients):
            raise UserError("legrad: no class score depends on the attention (all gradients are zero).")
        ranks.append(_cells(maps.legrad(gradients), passed.layout))
    return torch.stack(ranks, dim=1)


def _uncut(gradients: Sequence[Tensor | None]) -> list[Tensor]:
    """The gradients of attention weights, all of which the scores are computed from.

    Raises:
        UserError: A gradient is missing.
    """
    found = [gradient for gradient in gradients if gradient is not None]
    if len(found) < len(gradients):
        raise UserError(_CUT)
    return found


def _scores(passed: AttentionPass) -> list[Tensor]:
    """The sum of the class scores of the images, for each of the R classes."""
    with torch.enable_grad():
        return list(passed.logits.gather(1, passed.class_idx).sum(dim=0))


def _cells(relevance_NT: Tensor, layout: Layout) -> Tensor:
    """The relevance of the grid's tokens, N×h×w."""
    return layout.to_map(relevance_NT[:, :, None])[:, 0]


def _checked(
    recorded: Sequence[Tensor], batch: int, grids: dict[str, Layout], survey: Survey
) -> tuple[list[Tensor], Tensor | None, Layout]:
    """Split the recorded weights into layers and pooling, and find the layout of their tokens."""
    if not recorded:
        raise UserError("attention: the network has no attention whose weights can be recorded.")
    layouts = {layout.positions: layout for layout in grids.values()}
    layers, tokens = list(recorded), recorded[0].shape[-1]
    pooling = layers.pop() if len(layers) > 1 and layers[-1].shape[2:] == (1, tokens) else None
    square = all(weights.shape[0] == batch and weights.shape[2:] == (tokens, tokens) for weights in layers)
    if not square or tokens not in layouts:
        raise UserError(
            "attention: the network's attention is not between all tokens of one grid (it has windows, stages or"
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
