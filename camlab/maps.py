"""Class activation maps as pure functions of tensors: CAM, Grad-CAM and related methods, on any device.

Shape letters: N images, K feature channels, M classes, H and W the height and width of the map's own (coarse) grid.

Maps are *signed* and in the units of the class score. `normalize` rectifies and scales them, `upsample` resizes them to
the size of a picture. A gradient method turns activations and gradients, N×K×H×W each, into signed maps, N×H×W. To add
one, write such a function and enter it in `GRADIENT_METHODS`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Normalization = Literal["per_image", "shared", "raw"]


def cam(features_NKHW: Tensor, weight_MK: Tensor) -> Tensor:
    """Class activation maps of all classes at once: M_c(x, y) = Σ_k w_ck f_k(x, y) (Zhou et al. 2016, eq. 2).

    Args:
        features_NKHW: Input of the global average pooling, N×K×H×W.
        weight_MK: Weight of the linear layer that follows the pooling, M×K.

    Returns:
        Signed maps, N×M×H×W. The mean over (H, W) plus the layer's bias is the logit. (The pooling is a sum in
        the paper and a mean here; the map is the same.)

    Example:
        >>> features = torch.tensor([[[[1.0, 3.0]], [[2.0, 0.0]]]])  # one image, two channels, 1×2 cells
        >>> cam(features, torch.tensor([[1.0, 0.5]])).tolist()
        [[[[2.0, 3.0]]]]
    """
    wider = torch.promote_types(features_NKHW.dtype, weight_MK.dtype)  # autocast leaves features in half precision
    return torch.einsum("nkhw,mk->nmhw", features_NKHW.to(wider), weight_MK.to(wider))


@contextmanager
def gradient_safe(device: torch.device) -> Iterator[None]:
    """Context in which gradients can be computed, even if the caller is in inference mode.

    The caller's autocast stays active, but without its cache of cast weights, since weights that were cast in inference
    mode cannot be used for gradients.

    Example:
        >>> with torch.inference_mode(), gradient_safe(torch.device("cpu")):
        ...     torch.is_inference_mode_enabled()
        False
    """
    kind = device.type
    autocast: AbstractContextManager[object] = nullcontext()
    if torch.amp.is_autocast_available(kind):  # it is not on the meta device
        dtype, enabled = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
        autocast = torch.autocast(kind, dtype, enabled, cache_enabled=False)
    with torch.inference_mode(False), autocast:
        yield


def class_gradients(head: Callable[[Tensor], Tensor], activations_NKHW: Tensor, class_idx_N: Tensor) -> Tensor:
    """Gradient of each image's class score with respect to its activations: ∂y_c / ∂A, N×K×H×W.

    The network's head must be callable by itself; `camlab.Explainer` handles all other networks. No parameter's `.grad`
    is changed, and the caller may be in `no_grad`, in `inference_mode` or under autocast.

    Args:
        head: The part of the network after the target layer, N×K×H×W → N×M logits. The logits of an image must not
            depend on the other images, so the head must be in eval mode.
        activations_NKHW: Output of the target layer.
        class_idx_N: One class index per image, int64.

    Raises:
        ValueError: The number of classes is not the number of images.

    Example:
        >>> twice_the_mean = lambda activations: 2 * activations.mean(dim=(2, 3))
        >>> class_gradients(twice_the_mean, torch.ones(1, 1, 2, 2), torch.tensor([0])).tolist()
        [[[[0.5, 0.5], [0.5, 0.5]]]]
    """
    if class_idx_N.shape != activations_NKHW.shape[:1]:
        n, shape = len(activations_NKHW), tuple(class_idx_N.shape)
        raise ValueError(f"give one class per image: there are {n} images, and class_idx_N has the shape {shape}")
    with gradient_safe(activations_NKHW.device), torch.enable_grad():
        leaf = activations_NKHW.detach().clone().requires_grad_()
        score = head(leaf).gather(1, class_idx_N.clone()[:, None]).sum()
        (gradients,) = torch.autograd.grad(score, leaf)
    return gradients


def grad_cam(activations_NKHW: Tensor, gradients_NKHW: Tensor) -> Tensor:
    """Grad-CAM before its ReLU: Σ_k α_k A^k with α_k = 1/Z Σ_ij ∂y_c/∂A^k_ij (Selvaraju et al. 2017, eq. 1 and 2).

    Returns:
        Signed maps, N×H×W. If global average pooling and a linear layer follow A, Z · Grad-CAM = CAM (Z = H·W).

    Example:
        >>> grad_cam(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[0.0, 1.0]]]])).tolist()  # α = 1/2
        [[[0.5, 1.0]]]
    """
    alpha_NK = gradients_NKHW.mean(dim=(2, 3))
    return torch.einsum("nk,nkhw->nhw", alpha_NK, activations_NKHW)


def grad_cam_plus_plus(activations_NKHW: Tensor, gradients_NKHW: Tensor) -> Tensor:
    """Grad-CAM++: Σ_k w_k A^k, w_k = Σ_ij α_ij relu(g_ij), α = g² / (2 g² + g³ Σ_ab A_ab).

    See Chattopadhay et al. 2018, eq. 19. g is the gradient of the class score; the paper differentiates the exponential
    of the score, whose additional factor cancels in α and only scales the map. α is zero where its denominator is.

    Example:
        >>> grad_cam_plus_plus(torch.tensor([[[[1.0, 1.0]]]]), torch.tensor([[[[2.0, 0.0]]]])).tolist()  # α g = 2/6
        [[[0.3333333432674408, 0.3333333432674408]]]
    """
    sums = activations_NKHW.sum(dim=(2, 3), keepdim=True)
    denominator = 2 + gradients_NKHW * sums  # divided by g², which underflows in half precision
    alpha = torch.where(denominator != 0, 1 / denominator, torch.zeros_like(denominator))
    return torch.einsum("nk,nkhw->nhw", (alpha * gradients_NKHW.relu()).sum(dim=(2, 3)), activations_NKHW)


def xgrad_cam(activations_NKHW: Tensor, gradients_NKHW: Tensor) -> Tensor:
    """XGrad-CAM: Σ_k α_k A^k with α_k = Σ_ij A_ij g_ij / Σ_ij A_ij (Fu et al. 2020, eq. 8); 0 where Σ_ij A_ij is 0.

    Example:
        >>> xgrad_cam(torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([[[[0.0, 1.0]]]])).tolist()  # α = 3/4
        [[[0.75, 2.25]]]
    """
    sums = activations_NKHW.sum(dim=(2, 3))
    weighted = (activations_NKHW * gradients_NKHW).sum(dim=(2, 3))
    alpha_NK = torch.where(sums != 0, weighted / sums, torch.zeros_like(sums))
    return torch.einsum("nk,nkhw->nhw", alpha_NK, activations_NKHW)


def hires_cam(activations_NKHW: Tensor, gradients_NKHW: Tensor) -> Tensor:
    """HiResCAM: Σ_k g^k A^k, without averaging the gradient (Draelos and Carin 2020, eq. 5).

    Example:
        >>> hires_cam(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[3.0, -1.0]]]])).tolist()
        [[[3.0, -2.0]]]
    """
    return torch.einsum("nkhw,nkhw->nhw", gradients_NKHW, activations_NKHW)


def layer_cam(activations_NKHW: Tensor, gradients_NKHW: Tensor) -> Tensor:
    """LayerCAM: Σ_k relu(g^k) A^k (Jiang et al. 2021, eq. 6 and 7), also for layers far from the output.

    Example:
        >>> layer_cam(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[3.0, -1.0]]]])).tolist()
        [[[3.0, 0.0]]]
    """
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
    """Score-CAM: Σ_k α_k A^k, where α is the softmax over k of the class score of the image masked with A^k.

    See Wang et al. 2020, eq. 6. The mask is A^k, upsampled to the size of the image and scaled to [0, 1]. Each image
    takes K forward passes, in batches of `batch_size`. (The paper also subtracts the score of a black image. It is the
    same for all k, so it cancels in the softmax.)

    Args:
        forward: The whole network, N×C×H×W → N×M logits.
        images_NCHW: Input of the network.
        activations_NKHW: Output of the target layer for these images.
        class_idx_N: One class index per image, int64.
        batch_size: Number of masked images in a forward pass.

    Returns:
        Signed maps, N×H×W, on the grid of the activations.

    Example:
        >>> constant_score = lambda images: torch.zeros(len(images), 1)  # every channel has the same weight, 1/2
        >>> activations = torch.tensor([[[[4.0, 0.0]], [[0.0, 2.0]]]])
        >>> score_cam(constant_score, torch.ones(1, 3, 4, 8), activations, torch.tensor([0])).tolist()
        [[[2.0, 1.0]]]
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
    """Set negative values to zero (ReLU) and scale the rest. A map without positive values becomes zero.

    Args:
        maps: Signed maps, …×H×W.
        mode: `per_image` divides each map by its own maximum, `shared` divides all maps by their common maximum, and
            `raw` does not divide.

    Returns:
        Maps of the same shape, float32, in [0, 1] unless the mode is `raw`. NaN becomes zero.

    Raises:
        ValueError: The mode is unknown.

    Example:
        >>> maps = torch.tensor([[[-1.0, 2.0]], [[1.0, 4.0]]])
        >>> normalize(maps).tolist()
        [[[0.0, 1.0]], [[0.25, 1.0]]]
        >>> normalize(maps, "shared").tolist()
        [[[0.0, 0.5]], [[0.25, 1.0]]]
        >>> normalize(maps, "raw").tolist()
        [[[0.0, 2.0]], [[1.0, 4.0]]]
    """
    heat = torch.nan_to_num(maps.float(), nan=0.0, posinf=torch.finfo(torch.float32).max).relu()
    if mode == "raw":
        return heat
    if mode not in ("per_image", "shared"):
        raise ValueError(f"normalize={mode}: unknown mode. Choose from per_image, shared, raw.")
    peak = heat.amax(dim=(-2, -1), keepdim=True) if mode == "per_image" else heat.max()
    return torch.where(peak > 0, heat / peak, torch.zeros_like(heat))


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps with bilinear interpolation (`align_corners=False`).

    Args:
        maps: Maps, …×h×w.
        size: (height, width) of the result in pixels.

    Returns:
        Maps, …×height×width.

    Example:
        >>> upsample(torch.tensor([[[0.0, 4.0]]]), (1, 4)).tolist()
        [[[0.0, 1.0, 3.0, 4.0]]]
    """
    flat = maps.reshape(1, -1, *maps.shape[-2:])
    return F.interpolate(flat, size=size, mode="bilinear", align_corners=False).reshape(*maps.shape[:-2], *size)


def fuse(layers: Sequence[Tensor], mode: Normalization = "per_image") -> Tensor:
    """Average the maps of several layers on the finest of their grids.

    The maps of each layer are first normalised by `mode`, so that every layer has the same weight with `per_image` and
    `shared`. Normalise the result again: `normalize(fuse(layers, mode), mode)`.

    Args:
        layers: Signed maps of each layer, …×h×w; h and w may differ from layer to layer.
        mode: As in `normalize`.

    Returns:
        For a single layer, its signed maps, unchanged. For several layers, float32 maps without negative values, on the
        grid with the most cells.

    Example:
        >>> fine, coarse = torch.tensor([[[4.0, -1.0]]]), torch.tensor([[[2.0]]])
        >>> fuse([fine]).tolist()
        [[[4.0, -1.0]]]
        >>> fuse([fine, coarse]).tolist()
        [[[1.0, 0.5]]]
        >>> fuse([fine, coarse], "raw").tolist()
        [[[3.0, 1.0]]]
    """
    if len(layers) == 1:
        return layers[0]
    height, width = max((maps.shape[-2:] for maps in layers), key=lambda size: size.numel())
    return torch.stack([upsample(normalize(maps, mode), (height, width)) for maps in layers]).mean(dim=0)


def peak(maps_NHW: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Find the highest cell of each map, and the pixel of the picture at the centre of this cell.

    Args:
        maps_NHW: Signed maps, N×H×W.
        size: (height, width) of the picture in pixels.

    Returns:
        points: (row, column) of the centre of the highest cell, N×2, int64.
        clear: Whether the map has positive values and only one highest cell, N, bool.

    Example:
        >>> points, clear = peak(torch.tensor([[[0.0, 1.0]], [[1.0, 1.0]]]), (10, 20))
        >>> points[0].tolist(), clear.tolist()
        ([5, 15], [True, False])
    """
    n, height, width = maps_NHW.shape
    flat = maps_NHW.reshape(n, -1)
    highest, cell = flat.max(dim=1)
    clear = (highest > 0) & ((flat == highest[:, None]).sum(dim=1) == 1)
    row, column = cell // width, cell % width
    points = torch.stack([(2 * row + 1) * size[0] // (2 * height), (2 * column + 1) * size[1] // (2 * width)], dim=1)
    return points, clear
