"""Reasons to doubt maps that can be computed: too few cells, kernels that mix most of them, one of several networks."""

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from camlab.attribution.classifier import Classifier
from camlab.attribution.explainer import Explainer
from camlab.attribution.explanation import Explanation
from camlab.attribution.hooks import passing, replaced
from camlab.attribution.methods import METHODS
from camlab.attribution.probing import noise_like
from camlab.attribution.survey import Survey
from camlab.errors import UserError

LEAST_SIDE = 3  # cells: a coarser map cannot tell one place from another


def too_coarse(maps: Sequence[Tensor], survey: Survey) -> str | None:
    """Why the maps of a method cannot show a place, with the way out; None if they have cells enough.

    Args:
        maps: Maps …×h×w, one tensor for each target layer.
        survey: Survey of the network for images of this size.
    """
    height, width = max((signed.shape[-2:] for signed in maps), key=min)
    if min(height, width) >= LEAST_SIDE:
        return None
    finer = [name for name, layout in survey.layouts.items() if min(layout.grid) >= LEAST_SIDE]
    earlier = f", or an earlier layer such as {finer[-1]}" if finer else ""
    return f"Maps are {height}×{width}, too coarse to show a place, and are not scored. Give larger pictures{earlier}."


def mixed_cells(method: str, layer: str, survey: Survey) -> str | None:
    """Why the heat need not lie where the evidence is, though `auto` chooses this method at this layer; None if it may.

    Where a kernel covers most of the cells, a cell's features are of the whole picture. In ConvNeXt, where
    kernels are so wide, Grad-CAM at the default layer was at chance (experiments/architectures).

    Args:
        method: Name of the method.
        layer: Name of its target layer.
        survey: Survey of the network for images of this size.
    """
    widest = survey.mixing_kernel(layer)
    if widest is None:
        return None
    height, width = survey.layouts[layer].grid
    return (
        f"{METHODS[method].title} at {layer} may be wrong: kernels of {widest}×{widest} cover most of the"
        f" {height}×{width} cells, so that a cell is no place. layer_cam_all may do better, and"
        " camlab.score tells whether it finds the object."
    )


def one_of_several(explainer: Explainer, layers: Sequence[str], images: Tensor) -> str | None:
    """Why the maps show a part of the evidence only: the picture reaches the output by other ways, as in an ensemble.

    The modules that contain the layers and give a vector (logits or features) are made to give zeros. If two pictures
    of noise still have different logits, something else than these modules sees the picture. Ways around a layer within
    such a module, as in residual networks, are no reason. Where no module gives a vector, the default layer of a
    convolutional network is made to give zeros itself; a layer that the user chose may be passed by.

    Args:
        explainer: Explainer of the network.
        layers: Names of the target layers.
        images: N×C×H×W, for size, number format and device.
    """
    survey = explainer.survey(images)
    vectors = [call.name for call in survey.once if call.is_vector]
    around = [[name for name in vectors if layer.startswith(f"{name}.")] for layer in layers]
    if all(around):
        outer = sorted({min(names, key=len) for names in around})
        if _sees_without(explainer.classifier, outer, images):
            return (
                f"Maps at {', '.join(layers)} explain {', '.join(outer)} only, but the output also depends on the"
                " picture in other ways (an ensemble, a second branch). Explain each network by itself, or give layers"
                " of all of them."
            )
    elif not explainer.layers and survey.is_convolutional and _sees_without(explainer.classifier, layers, images):
        return (
            f"Maps at {', '.join(layers)} show a part of the evidence only: the output also depends on the picture in"
            " ways around this layer (branches that are joined later). Give layers of all branches, or a layer behind"
            " their junction."
        )
    return None


def _sees_without(classifier: Classifier, names: Sequence[str], images: Tensor) -> bool:
    """Whether the logits still depend on the picture if these modules give zeros."""
    modules = dict(classifier.network.named_modules())
    try:
        with passing(classifier.network, images.device), torch.no_grad(), ExitStack() as stack:
            for name in names:
                stack.enter_context(replaced(modules[name], torch.zeros_like))
            first, second = classifier.logits(noise_like(images, 2))
    except UserError:  # a network that cannot go on from zeros tells nothing
        return False
    return not torch.allclose(first, second, rtol=1e-4, equal_nan=True)


def doubts_of(explanation: Explanation, explainer: Explainer, images: Tensor, is_auto: bool = False) -> list[str]:
    """All reasons to doubt the maps of an explanation, each once.

    Args:
        explanation: The maps.
        explainer: Explainer that has computed them.
        images: The network's input, N×C×H×W.
        is_auto: Whether `auto` has chosen the methods.
    """
    survey = explainer.survey(images)
    found = [too_coarse(of_layers, survey) for of_layers in explanation.maps.values()]
    if is_auto:
        found += [mixed_cells(method, explanation.layers[method][0], survey) for method in explanation.maps]
    if any(METHODS[method].kind == "all_layers" for method in explanation.maps) and _sees_without(
        explainer.classifier, list(explainer.all_layers(images)), images
    ):
        found.append(
            "The mean over all layers shows a part of the evidence only: the output also depends on the picture in ways"
            " around the layers whose layout is known (a branch that flips or flattens it)."
        )
    for layers in {names for method, names in explanation.layers.items() if METHODS[method].takes_layers}:
        found.append(one_of_several(explainer, layers, images))
    return list(dict.fromkeys(filter(None, found)))


def check_grids(explanation: Explanation, survey: Survey) -> None:
    """Refuse to score maps that are too coarse to show a place.

    Raises:
        UserError: The maps of a method have fewer than 3×3 cells.
    """
    for of_layers in explanation.maps.values():
        if reason := too_coarse(of_layers, survey):
            raise UserError(reason)
