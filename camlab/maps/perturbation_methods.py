"""Methods that run the network again with parts of the picture or of the activations removed."""

from collections.abc import Callable

import torch
from torch import Tensor

from camlab.maps.scaling import upsample


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
        maps.append(torch.einsum("k,khw->hw", torch.cat(scores).softmax(dim=0).to(activations.dtype), activations))
    return torch.stack(maps)


def ablation_cam(activations_NKHW: Tensor, scores_N: Tensor, ablated_NK: Tensor) -> Tensor:
    """Ablation-CAM: Σ_k w_k A^k with w_k = (y_c - y_c^k) / y_c (Ramaswamy and Desai 2020, eq. 3).

    Args:
        activations_NKHW: Output of the target layer.
        scores_N: The class scores y_c.
        ablated_NK: The class scores y_c^k of the network whose channel k is set to zero.

    Returns:
        Signed maps, N×H×W. The division is by |y_c|, so that channels that support a class with a negative score count
        as support; it is left out where y_c is 0.

    Example:
        >>> ablation_cam(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([4.0]), torch.tensor([[2.0]])).tolist()
        [[[0.5, 1.0]]]
    """
    size_N1 = scores_N.abs()[:, None]
    drops_NK = scores_N[:, None] - ablated_NK
    weights_NK = drops_NK / torch.where(size_N1 > 0, size_N1, torch.ones_like(size_N1))
    return torch.einsum("nk,nkhw->nhw", weights_NK.to(activations_NKHW.dtype), activations_NKHW)
