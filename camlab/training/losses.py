"""The loss of each picture: cross-entropy, or binary cross-entropy where a picture may have any number of labels."""

import torch
import torch.nn.functional as F
from torch import Tensor


def losses_of(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Loss of each picture, in float32 at least: 16 bits are too few to sum and compare losses. N.

    Args:
        logits: N×M.
        labels: Class indices, N; or ones for the labels of each picture, N×M. The mean over the labels is then taken.
        weights: Weight of each class, M, by which the loss of its pictures is multiplied; or of "yes" for each label.

    Example:
        >>> losses_of(torch.zeros(1, 2), torch.tensor([1])), losses_of(torch.zeros(1, 2), torch.tensor([[1, 0]]))
        (tensor([0.6931]), tensor([0.6931]))
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if labels.dim() == 2:
        return F.binary_cross_entropy_with_logits(
            wide, labels.to(wide.dtype), pos_weight=weights, reduction="none"
        ).mean(dim=1)
    losses = F.cross_entropy(wide, labels, reduction="none")
    return losses if weights is None else losses * weights[labels]
