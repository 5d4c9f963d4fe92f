"""Where a network looks: CAM, Grad-CAM and its relatives as pure functions, torch in, torch out, on any device.

Shape letters: N images, K feature channels, M classes, H W the map's own (coarse) grid.

Maps come out *signed*, in the units of the class score; `normalize` rectifies and scales them, `upsample` brings them
to the size of a picture. Adding a gradient method is one function of (activations, gradients) and its line in
`GRADIENT_METHODS`.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Normalization = Literal["per_image", "shared", "raw"]


def cam(features_NKHW: Tensor, weight_MK: Tensor) -> Tensor:
    """Class activation maps of all classes at once: M_c(x, y) = Σ_k w_ck f_k(x, y) (Zhou et al. 2016, eq. 2).

    Args:
        features_NKHW: what the global average pooling reads, N×K×H×W.
        weight_MK: weight of the linear layer behind that pooling, M×K.

    Returns:
        Signed maps, N×M×H×W, for which mean over (H, W) + bias = logit. (The report writes the pooling as a sum and
        the map with a sum over x, y; the pooling is a mean here, and the map is the paper's.)
    """
    wider = torch.promote_types(features_NKHW.dtype, weight_MK.dtype)  # autocast leaves features in half precision
    return torch.einsum("nkhw,mk->nmhw", features_NKHW.to(wider), weight_MK.to(wider))


def class_gradients(head: Callable[[Tensor], Tensor], activations_NKHW: Tensor, class_idx_N: Tensor) -> Tensor:
    """Gradient of each image's class score with respect to its activations: ∂y_c / ∂A, N×K×H×W.

    The graph is cut at the activations: a detached clone becomes the leaf and only `head` runs. No parameter's `.grad`
    is touched, nothing behind the activations is traversed, and the caller may be in `no_grad`, in `inference_mode` or
    under autocast.

    Args:
        head: what follows the target layer, N×K×H×W → N×M logits; rows must not depend on each other (eval mode).
        activations_NKHW: output of the target layer.
        class_idx_N: one class index per image, int64.

    Raises:
        ValueError: not exactly one class per image.
    """
    if class_idx_N.shape != activations_NKHW.shape[:1]:
        raise ValueError(f"one class per image: {len(activations_NKHW)} images, {tuple(class_idx_N.shape)} classes")
    device = activations_NKHW.device.type
    # Autocast caches weights cast to bf16; one cached in inference mode could not be used for a gradient.
    autocast = torch.autocast(
        device,
        dtype=torch.get_autocast_dtype(device),
        enabled=torch.is_autocast_enabled(device),
        cache_enabled=False,
    )
    with torch.inference_mode(False), torch.enable_grad(), autocast:
        leaf = activations_NKHW.detach().clone().requires_grad_()
        score = head(leaf).gather(1, class_idx_N.clone()[:, None]).sum()
        (gradients,) = torch.autograd.grad(score, leaf)
    return gradients


def grad_cam(activations_NKHW: Tensor, gradients_NKHW: Tensor) -> Tensor:
    """Grad-CAM before its ReLU: Σ_k α_k A^k with α_k = 1/Z Σ_ij ∂y_c/∂A^k_ij (Selvaraju et al. 2017, eq. 1 and 2).

    Returns:
        Signed maps, N×H×W. With global average pooling and a linear layer behind A, Z · Grad-CAM = CAM (Z = H·W).
    """
    alpha_NK = gradients_NKHW.mean(dim=(2, 3))
    return torch.einsum("nk,nkhw->nhw", alpha_NK, activations_NKHW)


def grad_cam_plus_plus(activations_NKHW: Tensor, gradients_NKHW: Tensor) -> Tensor:
    """Grad-CAM++: Σ_k w_k A^k, w_k = Σ_ij α_ij relu(g_ij), α = g² / (2 g² + g³ Σ_ab A_ab).

    Chattopadhay et al. 2018, eq. 19. g is the gradient of the class score; the paper's derivatives are those of its
    exponential, whose factor cancels in α and scales a map as a whole. Where the denominator is zero, so is α. N×H×W.
    """
    sums = activations_NKHW.sum(dim=(2, 3), keepdim=True)
    denominator = 2 + gradients_NKHW * sums  # g² is cancelled: in half precision it underflows
    alpha = torch.where(denominator != 0, 1 / denominator, torch.zeros_like(denominator))
    return torch.einsum("nk,nkhw->nhw", (alpha * gradients_NKHW.relu()).sum(dim=(2, 3)), activations_NKHW)


def xgrad_cam(activations_NKHW: Tensor, gradients_NKHW: Tensor) -> Tensor:
    """XGrad-CAM: Σ_k α_k A^k with α_k = Σ_ij A_ij g_ij / Σ_ij A_ij (Fu et al. 2020, eq. 8), 0 where A is. N×H×W."""
    sums = activations_NKHW.sum(dim=(2, 3))
    weighted = (activations_NKHW * gradients_NKHW).sum(dim=(2, 3))
    alpha_NK = torch.where(sums != 0, weighted / sums, torch.zeros_like(sums))
    return torch.einsum("nk,nkhw->nhw", alpha_NK, activations_NKHW)


def hires_cam(activations_NKHW: Tensor, gradients_NKHW: Tensor) -> Tensor:
    """HiResCAM: Σ_k g^k A^k, the gradient not averaged (Draelos and Carin 2020, eq. 5). N×H×W."""
    return torch.einsum("nkhw,nkhw->nhw", gradients_NKHW, activations_NKHW)


def layer_cam(activations_NKHW: Tensor, gradients_NKHW: Tensor) -> Tensor:
    """LayerCAM: Σ_k relu(g^k) A^k (Jiang et al. 2021, eq. 6 and 7); also for layers far from the output. N×H×W."""
    return torch.einsum("nkhw,nkhw->nhw", gradients_NKHW.relu(), activations_NKHW)


GRADIENT_METHODS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "grad_cam": grad_cam,
    "grad_cam_plus_plus": grad_cam_plus_plus,
    "xgrad_cam": xgrad_cam,
    "hires_cam": hires_cam,
    "layer_cam": layer_cam,
}


@torch.no_grad()
def score_cam(
    forward: Callable[[Tensor], Tensor],
    images_NCHW: Tensor,
    activations_NKHW: Tensor,
    class_idx_N: Tensor,
    batch_size: int = 32,
) -> Tensor:
    """Score-CAM: Σ_k α_k A^k, α the softmax over k of the class score of the image masked with A^k.

    Wang et al. 2020, eq. 6. A mask is A^k, upsampled to the image and stretched to [0, 1]; K forward passes an image,
    `batch_size` at a time. (The paper subtracts the score of a black image; the softmax does not see a constant.)

    Args:
        forward: the whole network, N×C×H×W → N×M logits.
        images_NCHW: its input.
        activations_NKHW: output of the target layer for them.
        class_idx_N: one class index per image, int64.
        batch_size: masked images per forward pass.

    Returns:
        Signed maps, N×H×W of the activations.
    """
    size = (images_NCHW.shape[-2], images_NCHW.shape[-1])
    maps = []
    for image, activations, class_idx in zip(images_NCHW, activations_NKHW, class_idx_N, strict=True):
        scores = []
        for some in activations.split(batch_size):
            masks = upsample(some, size)
            low, high = masks.amin(dim=(1, 2), keepdim=True), masks.amax(dim=(1, 2), keepdim=True)
            masks = torch.where(high > low, (masks - low) / (high - low), torch.zeros_like(masks))
            scores.append(forward(image * masks[:, None])[:, class_idx])
        maps.append(torch.einsum("k,khw->hw", torch.cat(scores).softmax(dim=0), activations))
    return torch.stack(maps)


def normalize(maps: Tensor, mode: Normalization = "per_image") -> Tensor:
    """Keep the evidence for the class (ReLU) and scale it; a map without any stays zero.

    Args:
        maps: signed maps, …×H×W.
        mode: `per_image` divides each map by its own maximum, `shared` all by one maximum, `raw` by nothing.

    Returns:
        Maps of the same shape, float32; in [0, 1] unless `raw`. Not-a-number counts as no evidence.
    """
    heat = torch.nan_to_num(maps.float(), nan=0.0, posinf=torch.finfo(torch.float32).max).relu()
    if mode == "raw":
        return heat
    if mode not in ("per_image", "shared"):
        raise ValueError(f"normalization {mode!r}: per_image, shared or raw")
    peak = heat.amax(dim=(-2, -1), keepdim=True) if mode == "per_image" else heat.max()
    return torch.where(peak > 0, heat / peak, torch.zeros_like(heat))


def fuse(layers: Sequence[Tensor], mode: Normalization = "per_image") -> Tensor:
    """Combine the maps of several layers into one map for each image.

    Each layer's maps are rectified and scaled first, so that one layer counts as much as another. `normalize` with the
    same mode comes after this function, then `upsample`.

    Args:
        layers: Signed maps N×h×w of each layer, on the layer's own grid.
        mode: `per_image` scales each map by its own maximum, `shared` each layer's maps by their common maximum, `raw`
            by nothing.

    Returns:
        The signed maps unchanged where there is one layer; else the mean of the scaled maps on the finest grid among
        the layers.

    Example:
        >>> fine, coarse = torch.tensor([[[1.0, -1.0], [0.0, 4.0]]]), torch.tensor([[[2.0]]])
        >>> fuse([fine, coarse], "raw")
        tensor([[[1.5000, 1.0000],
                 [1.0000, 3.0000]]])
    """
    if len(layers) == 1:
        return layers[0]
    finest = (max(part.shape[-2] for part in layers), max(part.shape[-1] for part in layers))
    return torch.stack([upsample(normalize(part, mode), finest) for part in layers]).mean(dim=0)


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of …×H×W maps to `size` = (height, width) in pixels; corners are not aligned."""
    flat = maps.reshape(1, -1, *maps.shape[-2:])
    return F.interpolate(flat, size=size, mode="bilinear", align_corners=False).reshape(*maps.shape[:-2], *size)


def peak(maps_NHW: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Where each map is highest, as a pixel of a picture of `size`.

    Returns:
        points: (row, column) of the centre of the highest cell, N×2, int64.
        clear: False where the map has no positive evidence or several highest cells, N, bool.
    """
    n, height, width = maps_NHW.shape
    flat = maps_NHW.reshape(n, -1)
    highest, cell = flat.max(dim=1)
    clear = (highest > 0) & ((flat == highest[:, None]).sum(dim=1) == 1)
    row, column = cell // width, cell % width
    points = torch.stack([(2 * row + 1) * size[0] // (2 * height), (2 * column + 1) * size[1] // (2 * width)], dim=1)
    return points, clear
