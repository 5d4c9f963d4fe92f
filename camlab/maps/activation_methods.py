"""Methods that need no gradients: CAM and Eigen-CAM."""

import torch
from torch import Tensor

_LEAST_SPREAD = 0.01  # of the norms of the cells, relative to their mean, from which Eigen-CAM's sign follows them


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


def eigen_cam(activations_NKHW: Tensor) -> Tensor:
    """Eigen-CAM: the activations of each cell, projected on their first principal component (Muhammad and Yeasin 2020).

    The map is the same for all classes. The activations are centred before the decomposition, as in pytorch-grad-cam.
    The sign of a principal component is arbitrary; it is chosen so that the map grows with the norm of the activations
    or, where all cells have nearly the same norm (behind a LayerNorm), so that the cell farthest from 0 is positive.

    Returns:
        Signed maps, N×H×W.

    Example:
        >>> eigen_cam(torch.tensor([[[[0.0, 2.0]], [[0.0, 0.0]]]])).tolist()  # centred: -1 and 1
        [[[-1.0, 1.0]]]
    """
    flat = activations_NKHW.float().flatten(2).transpose(1, 2)  # N×HW×K
    centred = flat - flat.mean(dim=1, keepdim=True)
    first = torch.linalg.svd(centred, full_matrices=False).Vh[:, :1]  # N×1×K
    projected = (centred * first).sum(dim=2)
    norms = flat.norm(dim=2)
    agreement = (projected * (norms - norms.mean(dim=1, keepdim=True))).sum(dim=1, keepdim=True)
    farthest = projected.gather(1, projected.abs().argmax(dim=1, keepdim=True))
    differ = norms.std(dim=1, keepdim=True) > _LEAST_SPREAD * norms.mean(dim=1, keepdim=True)
    signed = torch.where(torch.where(differ, agreement, farthest) < 0, -projected, projected)
    return signed.reshape(len(flat), *activations_NKHW.shape[2:])
