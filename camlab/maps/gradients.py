"""Gradients of class scores, in any grad mode of the caller, and the score that Finer-CAM differentiates."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor


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


def finer_scores(logits_NM: Tensor, class_idx_N: Tensor, gamma: float = 0.6, references: int = 3) -> Tensor:
    """Finer-CAM's score: how far the class score is above those of similar classes (Zhang et al. 2025, eq. 4).

    Σ_r p_r (y_c - γ y_r) / Σ_r p_r over the classes r whose scores are nearest to y_c, where p is the softmax of the
    logits, as in the authors' code. Grad-CAM of this score shows what sets the class apart from them.

    Args:
        logits_NM: The network's output.
        class_idx_N: One class index c per image, int64.
        gamma: Strength γ of the comparison.
        references: Number of similar classes; at most M - 1 are taken.

    Returns:
        Scores, N. With one class only, the score is the logit.

    Example:
        >>> finer_scores(torch.tensor([[2.0, 1.0]]), torch.tensor([0]), gamma=0.5).tolist()  # 2 - 0.5 · 1
        [1.5]
    """
    own_N1 = logits_NM.gather(1, class_idx_N[:, None])
    if logits_NM.shape[1] == 1:
        return own_N1[:, 0]
    distances = (logits_NM - own_N1).detach().abs().scatter(1, class_idx_N[:, None], torch.inf)
    nearest_NR = distances.topk(min(references, logits_NM.shape[1] - 1), dim=1, largest=False).indices
    weights = logits_NM.gather(1, nearest_NR).softmax(dim=1)  # as p_r / Σ p_r, without division by a tiny sum
    return (weights * (own_N1 - gamma * logits_NM.gather(1, nearest_NR))).sum(dim=1)


def guided_grad_cam(guided_gradients_NCHW: Tensor, heat_NHW: Tensor) -> Tensor:
    """Guided Grad-CAM: guided gradients of the picture, times the heat of Grad-CAM (Selvaraju et al. 2017, §3.2).

    Args:
        guided_gradients_NCHW: Gradient of the class score with respect to the picture, in which each ReLU has passed
            only positive gradients (Springenberg et al. 2015).
        heat_NHW: Heat of Grad-CAM at the picture's size, not negative.

    Returns:
        Signed maps of single pixels, N×H×W: the sum over the picture's channels.

    Example:
        >>> guided_grad_cam(torch.tensor([[[[1.0, 1.0]], [[2.0, 0.0]]]]), torch.tensor([[[0.5, 2.0]]])).tolist()
        [[[1.5, 2.0]]]
    """
    return (guided_gradients_NCHW * heat_NHW[:, None]).sum(dim=1)
