"""Methods that turn activations and gradients, N×K×H×W each, into signed maps, N×H×W, in float32 or wider.

To add one, write such a function and enter it in `GRADIENT_METHODS`.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def grad_cam(activations_NKHW: Tensor, gradients_NKHW: Tensor) -> Tensor:
    """Grad-CAM before its ReLU: Σ_k α_k A^k with α_k = 1/Z Σ_ij ∂y_c/∂A^k_ij (Selvaraju et al. 2017, eq. 1 and 2).

    Returns:
        Signed maps, N×H×W. If global average pooling and a linear layer follow A, Z · Grad-CAM = CAM (Z = H·W).

    Example:
        >>> grad_cam(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[0.0, 1.0]]]])).tolist()  # α = 1/2
        [[[0.5, 1.0]]]
    """
    activations, gradients = _wide(activations_NKHW), _wide(gradients_NKHW)
    return torch.einsum("nk,nkhw->nhw", gradients.mean(dim=(2, 3)), activations)


def grad_cam_plus_plus(activations_NKHW: Tensor, gradients_NKHW: Tensor) -> Tensor:
    """Grad-CAM++: Σ_k w_k A^k, w_k = Σ_ij α_ij relu(g_ij), α = g² / (2 g² + g³ Σ_ab A_ab).

    See Chattopadhay et al. 2018, eq. 19. g is the gradient of the class score; the paper differentiates the exponential
    of the score, whose additional factor cancels in α and only scales the map. α is zero where its denominator is.

    Example:
        >>> grad_cam_plus_plus(torch.tensor([[[[1.0, 1.0]]]]), torch.tensor([[[[2.0, 0.0]]]])).tolist()  # α g = 2/6
        [[[0.3333333432674408, 0.3333333432674408]]]
    """
    activations, gradients = _wide(activations_NKHW), _wide(gradients_NKHW)
    denominator = 2 + gradients * activations.sum(dim=(2, 3), keepdim=True)  # divided by g², which may underflow
    alpha = torch.where(denominator != 0, 1 / denominator, torch.zeros_like(denominator))
    return torch.einsum("nk,nkhw->nhw", (alpha * gradients.relu()).sum(dim=(2, 3)), activations)


def xgrad_cam(activations_NKHW: Tensor, gradients_NKHW: Tensor) -> Tensor:
    """XGrad-CAM: Σ_k α_k A^k with α_k = Σ_ij A_ij g_ij / Σ_ij A_ij (Fu et al. 2020, eq. 8); 0 where Σ_ij A_ij is 0.

    Example:
        >>> xgrad_cam(torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([[[[0.0, 1.0]]]])).tolist()  # α = 3/4
        [[[0.75, 2.25]]]
    """
    activations = _wide(activations_NKHW)
    sums = activations.sum(dim=(2, 3))
    weighted = (activations * _wide(gradients_NKHW)).sum(dim=(2, 3))
    alpha_NK = torch.where(sums != 0, weighted / sums, torch.zeros_like(sums))
    return torch.einsum("nk,nkhw->nhw", alpha_NK, activations)


def hires_cam(activations_NKHW: Tensor, gradients_NKHW: Tensor) -> Tensor:
    """HiResCAM: Σ_k g^k A^k, without averaging the gradient (Draelos and Carin 2020, eq. 5).

    Example:
        >>> hires_cam(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[3.0, -1.0]]]])).tolist()
        [[[3.0, -2.0]]]
    """
    return torch.einsum("nkhw,nkhw->nhw", _wide(gradients_NKHW), _wide(activations_NKHW))


def layer_cam(activations_NKHW: Tensor, gradients_NKHW: Tensor) -> Tensor:
    """LayerCAM: Σ_k relu(g^k) A^k (Jiang et al. 2021, eq. 6 and 7), also for layers far from the output.

    Example:
        >>> layer_cam(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[3.0, -1.0]]]])).tolist()
        [[[3.0, 0.0]]]
    """
    return torch.einsum("nkhw,nkhw->nhw", _wide(gradients_NKHW).relu(), _wide(activations_NKHW))


def _wide(tensor: Tensor) -> Tensor:
    """Half precision as float32: sums over cells and channels exceed the largest float16 number, 65504."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


GRADIENT_METHODS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "grad_cam": grad_cam,
    "grad_cam_plus_plus": grad_cam_plus_plus,
    "xgrad_cam": xgrad_cam,
    "hires_cam": hires_cam,
    "layer_cam": layer_cam,
    "finer_cam": grad_cam,  # of another score, `camlab.maps.finer_scores`
}
