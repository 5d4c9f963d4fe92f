"""Methods that turn the attention weights of a transformer, and their gradients, into maps.

Shape letters: L layers, N images, T tokens, E heads. Attention weights are N×E×T×T: row = query, column = key.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def attention_relevance(weights: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """Relevance of each token for each token: R ← R + E_heads[(∇A ⊙ A)⁺] R, from R = 1 (Chefer et al. 2021, eq. 5, 6).

    Args:
        weights: Attention weights A of each layer, from the first to the last, N×E×T×T.
        gradients: Gradients of the class score with respect to A.

    Returns:
        Relevance, N×T×T: row = the token that is read (a class token, for example), column = its source.

    Example:
        >>> half = torch.full((1, 1, 2, 2), 0.5)
        >>> attention_relevance([half], [half]).tolist()  # 1 + 0.5 · 0.5
        [[[1.25, 0.25], [0.25, 1.25]]]
    """
    first = weights[0]
    relevance = torch.eye(first.shape[-1], dtype=torch.float32, device=first.device).expand(len(first), -1, -1)
    with torch.autocast(first.device.type, enabled=False):  # products of small gradients need float32
        for attention, gradient in zip(weights, gradients, strict=True):
            positive = (attention.float() * gradient.float()).relu().mean(dim=1)
            relevance = relevance + positive @ relevance
    return relevance


def legrad(gradients: Sequence[Tensor]) -> Tensor:
    """LeGrad: mean over layers, heads and queries of (∂s^l/∂A^l)⁺ (Bousselham et al. 2024, eq. 8 to 10).

    Args:
        gradients: For each layer l, the gradient of s^l with respect to its attention weights A^l, N×E×T×T. s^l is the
            class score that the network's head computes from the output of layer l.

    Returns:
        Relevance of each token as a key, N×T.

    Example:
        >>> legrad([torch.tensor([[[[1.0, -1.0], [3.0, 0.0]]]])]).tolist()
        [[2.0, 0.0]]
    """
    return torch.stack([gradient.float().relu().mean(dim=(1, 2)) for gradient in gradients]).mean(dim=0)
