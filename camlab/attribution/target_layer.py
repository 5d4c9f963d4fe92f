"""Find the layers at which maps are computed: those that the user names, or the defaults of a network."""

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor, nn

from camlab.attribution.calls import ACTIVATIONS
from camlab.attribution.classifier import Classifier
from camlab.attribution.hooks import cut, reading
from camlab.attribution.layouts import Layout
from camlab.attribution.survey import MOVED, Survey
from camlab.errors import UserError, did_you_mean

Layer = str | nn.Module

_EARLY = 0.4  # share of a network's modules after which a finer grid may be chosen: half of a small Swin comes after it


def layer_names(modules: Mapping[str, nn.Module], layers: Layer | Sequence[Layer]) -> tuple[str, ...]:
    """Return the names of one or several layers, which are given by name or as modules.

    Args:
        modules: The network's modules by name.
        layers: One layer or a sequence of layers.

    Raises:
        UserError: A layer is not part of the network.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        >>> layer_names(dict(network.named_children()), [network[1], "0"])
        ('1', '0')
    """
    each = layers if isinstance(layers, (list, tuple)) else (layers,)
    return tuple(_name_of(layer, modules) for layer in each)


def _name_of(layer: Layer, modules: Mapping[str, nn.Module]) -> str:
    parts = ", ".join(name for name in modules if "." not in name)
    if isinstance(layer, nn.Module):
        for name, module in modules.items():
            if module is layer:
                return name
        raise UserError(
            f"layer: this {type(layer).__name__} is not one of the network's modules. Give a module of this network,"
            f" or a name: {parts}, or a layer inside them."
        )
    if layer not in modules:
        raise UserError(
            f"layer={layer}: no such layer. {did_you_mean(layer, modules, most=3)}Choose from {parts}, or a layer"
            " inside them."
        )
    return layer


def layer_for_cam(survey: Survey) -> str:
    """Return the name of the last layer that is used once and has more than one cell: the input of the pooling.

    Raises:
        UserError: No layer has a spatial output.
    """
    with_space = [call.name for call in survey.once if call.name in survey.layouts]
    if not with_space and survey.moved:
        raise UserError(f"layer: {MOVED}")
    if not with_space:
        once = {call.name for call in survey.once}
        twice = [call.name for call in survey.calls if call.name not in once and prod(call.shape[2:]) > 1]
        way_out = f" {twice[-1]} runs more than once: give a network in which it runs once." if twice else ""
        raise UserError(f"The network has no layer with a spatial output (larger than 1×1) that is used once.{way_out}")
    return with_space[-1]


def layer_for_gradients(classifier: Classifier, image: Tensor, survey: Survey) -> str:
    """Return the name of the default layer for gradient methods.

    In a convolutional network it is the activation after the last convolution, if it is used once and no pooling comes
    before it; otherwise it is the layer for CAM. In other networks it is the last norm or block on whose cells the
    output depends; if the grid becomes coarser through the network, the last one on the grid
    before the coarsest (experiments/architectures compares layers), unless most of the network comes after it.

    Args:
        classifier: The network, in a context for passes (`camlab.attribution.hooks.passing`).
        image: 1×C×H×W.
        survey: Survey of the network for images of this size.

    Raises:
        UserError: No layer has a spatial output.
    """
    last = layer_for_cam(survey)
    if survey.is_convolutional and (survey.is_nchw or _reached_by_gradient(classifier, image, [last], survey)):
        return _last_activation(survey) or last
    named = [call.name for call in survey.once if call.name in survey.layouts]
    reached = _reached_by_gradient(classifier, image, _stages(classifier, named), survey)
    reached = reached or _reached_by_gradient(classifier, image, named, survey)
    if survey.is_moved_at_end:
        raise UserError(f"layer: {MOVED} Or give a layer before it, such as {last}.")
    if not reached or survey.has_unknown_end:
        raise UserError(_unknown(last))
    coarsest = survey.layouts[reached[-1]]
    alike = [(name, survey.layouts[name]) for name in reached if survey.layouts[name].order == coarsest.order]
    finer = [name for name, layout in alike if prod(layout.grid) > prod(coarsest.grid)]
    calls = [call.name for call in survey.calls]
    late = [name for name in finer if calls.index(name) > _EARLY * len(calls)]
    return (late or reached)[-1]


def layers_with_gradient(classifier: Classifier, image: Tensor, survey: Survey) -> dict[str, Layout]:
    """Return the layouts of all layers whose layout is known and on whose cells the output depends, in order.

    A layer whose output is that of an earlier one is left out, so that wrapping layers in a container changes nothing.

    They must reach into the second half of the layers with space: earlier features alone tell little about a class.

    Args:
        classifier: The network, in a context for passes (`camlab.attribution.hooks.passing`).
        image: 1×C×H×W.
        survey: Survey of the network for images of this size.

    Raises:
        UserError: There are none, or the network moves the picture.
    """
    last = layer_for_cam(survey)
    if survey.is_moved_at_end:
        raise UserError(f"layer: {MOVED} Or give a layer before it, such as {last}.")
    named = [call.name for call in survey.once if call.name in survey.layouts and not call.is_repeat]
    reached = _reached_by_gradient(classifier, image, named, survey, share=0)
    with_space = [call.name for call in survey.calls if not call.is_vector]
    if not reached or with_space.index(reached[-1]) < len(with_space) // 2:
        raise UserError(f"{_unknown(last)} layer_cam_all takes no layer, but hires_cam does.")
    return {name: survey.layouts[name] for name in reached}


def _unknown(last: str) -> str:
    """The message for a network whose last features cannot be read, with the last layer that can be."""
    return (
        "It is not known how the network's last features are arranged in space, or no score depends on them. Give"
        f" layer=NAME of a layer that you have checked, such as {last}, or in Python reshape=FUNCTION."
    )


def _stages(classifier: Classifier, names: Sequence[str]) -> list[str]:
    """Those of the layers that are norms, or blocks in a list of blocks."""
    modules = dict(classifier.network.named_modules())

    def is_block(name: str) -> bool:
        parent = modules[name.rpartition(".")[0]]
        return isinstance(parent, (nn.ModuleList, nn.Sequential)) and any(modules[name].children())

    def is_norm(name: str) -> bool:
        return "norm" in type(modules[name]).__name__[1:].lower()  # LayerNorm2d, BatchNormAct2d; not NormMlp

    return [name for name in names if is_block(name) or is_norm(name)]


def _last_activation(survey: Survey) -> str | None:
    """The activation after the last convolution, if no pooling comes between them and it is used once."""
    calls = [call for call in survey.calls if len(call.shape) == 4 and prod(call.shape[2:]) > 1]
    convolutions = [i for i, call in enumerate(calls) if isinstance(call.module, nn.Conv2d)]
    if not convolutions:
        return None
    once = {call.name for call in survey.once}
    for call in calls[convolutions[-1] + 1 :]:
        if call.shape != calls[convolutions[-1]].shape:
            return None
        if isinstance(call.module, ACTIVATIONS) and call.name in once:
            return call.name
    return None


def _reached_by_gradient(
    classifier: Classifier, image: Tensor, names: Sequence[str], survey: Survey, share: float = 0.5
) -> list[str]:
    """Those of the layers of which more than this share of the cells changes the network's output.

    It is the input of the last linear layer that is differentiated, since that layer may start with weights of zero.
    """
    modules = dict(classifier.network.named_modules())
    with (
        torch.enable_grad(),
        reading(survey.last_linear, detach=False) as features,
        cut(modules, names, differentiate=True) as outputs,
    ):
        logits = classifier.logits(image)
        ends = features[-1] if features and features[-1].dim() == 2 else logits  # else it is not the classifier
        weights = torch.randn(ends.shape, generator=torch.Generator("cpu").manual_seed(0), device="cpu").to(ends)
        score = (ends * weights).sum()
    if not score.requires_grad or not outputs:
        return []
    gradients = torch.autograd.grad(score, list(outputs.values()), allow_unused=True)
    return [
        name
        for name, gradient in zip(outputs, gradients, strict=True)
        if gradient is not None and bool((survey.layouts[name].to_map(gradient) != 0).any(dim=1).float().mean() > share)
    ]
