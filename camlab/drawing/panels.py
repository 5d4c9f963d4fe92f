"""From a CamNet and pictures to captioned heatmaps: the maps of `camlab.maps`, drawn with `camlab.drawing.render`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from camlab import maps
from camlab.drawing import render
from camlab.maps import Normalization
from camlab.models.cam_net import CamNet
from camlab.models.evaluating import evaluating

_FLOAT16_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Explanation:
    """Signed maps of N images, and which class each of R Grad-CAM rows is for.

    Attributes:
        probabilities: softmax of the logits, N×M.
        cam: of all classes, N×M×h×w.
        image_idx, class_idx: what row r shows, R each: the predicted class of every image, then the true class of
            those whose prediction is wrong.
        grad_cam: at the ReLU after the last convolution, R×h'×w'.
    """

    probabilities: Tensor
    cam: Tensor
    image_idx: Tensor
    class_idx: Tensor
    grad_cam: Tensor


@torch.no_grad()
def explain(network: CamNet, inputs: Tensor, labels: Tensor | None = None) -> Explanation:
    """CAM and Grad-CAM of a batch from one forward pass, and a backward through the head only.

    Args:
        network: left as it was found: weights, gradients, train/eval flags, RNG.
        inputs: preprocessed images, N×3×S×S.
        labels: true classes, N; wrongly classified images get a second row, for their true class.
    """
    with evaluating(network):
        last_relu = network.forward_last_relu(inputs)
        features = network.forward_cam_conv(network.pool(last_relu))
        probabilities = network.forward_head(features).softmax(dim=1)
        predicted = probabilities.argmax(dim=1)
        image_idx, class_idx = torch.arange(len(inputs), device=inputs.device), predicted
        if labels is not None:
            wrong = torch.nonzero(predicted != labels).flatten()
            image_idx, class_idx = torch.cat([image_idx, wrong]), torch.cat([class_idx, labels[wrong]])
        activations = last_relu[image_idx]
        gradients = maps.class_gradients(network.forward_from_last_relu, activations, class_idx)
        cam = maps.cam(features, network.fc.weight)
    return Explanation(probabilities, cam, image_idx, class_idx, maps.grad_cam(activations, gradients))


@dataclass(frozen=True)
class Panel:
    """One image with its heatmaps, drawn, and what a reader should know of it."""

    picture: np.ndarray
    caption: str


def draw_panels(
    images: Tensor,
    explanation: Explanation,
    class_names: Sequence[str],
    labels: Tensor | None = None,
    normalization: Normalization = "per_image",
    alpha: float = 0.5,
) -> list[Panel]:
    """One panel an image: image | CAM | Grad-CAM for the predicted class, and the same for the true one if it differs.

    Args:
        images: the original pictures, uint8 RGB N×3×H×W; heatmaps are drawn at their size.
        explanation: of these images.
        class_names: M names.
        labels: true classes, N, for the caption.
        normalization: how maps are scaled; `shared` scales over all images of a method.
        alpha: the heatmap's share of an overlay.
    """
    size = (images.shape[-2], images.shape[-1])
    pictures = images.permute(0, 2, 3, 1).cpu().numpy()
    rows = explanation.image_idx.cpu().numpy()
    cams = explanation.cam[explanation.image_idx, explanation.class_idx]
    drawn = {}
    for method, signed in (("CAM", cams), ("Grad-CAM", explanation.grad_cam)):
        heat = maps.upsample(maps.normalize(signed, normalization), size).cpu().numpy()
        drawn[method] = heat, render.overlay(pictures[rows], heat.clip(0, 1), alpha)
    panels = []
    for i, picture in enumerate(pictures):
        tiles = [("image", picture)]
        for row in np.nonzero(rows == i)[0]:
            name = class_names[int(explanation.class_idx[row])]
            for method, (heat, overlays) in drawn.items():
                evidence = "" if heat[row].max() > 0 else ": none"
                tiles.append((f"{method} {name}{evidence}", overlays[row]))
        caption = _caption(explanation.probabilities[i], class_names, None if labels is None else int(labels[i]))
        panels.append(Panel(render.panel(tiles, caption), caption))
    return panels


def write_panels(folder: Path, panels: Sequence[Panel], explanation: Explanation) -> Path:
    """Write each panel as JPEG, all of them as `sheet.png`, and the raw signed maps as float16 `maps.npz`.

    Returns:
        The contact sheet's path.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for i, panel in enumerate(panels):
        render.write_image(folder / f"{i:02d}.jpg", panel.picture)
    sheet = folder / "sheet.png"
    render.write_image(sheet, render.contact_sheet([panel.picture for panel in panels]))
    np.savez_compressed(
        folder / "maps.npz",
        cam=_float16(explanation.cam),
        grad_cam=_float16(explanation.grad_cam),
        grad_cam_image=explanation.image_idx.cpu().numpy(),
        grad_cam_class=explanation.class_idx.cpu().numpy(),
        probabilities=explanation.probabilities.float().cpu().numpy(),
    )
    return sheet


def _caption(probabilities: Tensor, class_names: Sequence[str], label: int | None) -> str:
    confidence, predicted = probabilities.max(dim=0)
    said = f"{class_names[int(predicted)]} {100 * float(confidence):.0f} %"
    return f"predicted {said}" if label is None else f"true {class_names[label]}, predicted {said}"


def _float16(signed: Tensor) -> np.ndarray:
    return signed.float().clamp(-_FLOAT16_MAX, _FLOAT16_MAX).half().cpu().numpy()
