"""Choose the classes to explain."""

import math
from collections.abc import Callable, Sequence
from numbers import Integral

import torch
from torch import Tensor

from camlab.errors import UserError, cut, first_line

Chooser = Callable[[Tensor], Tensor]  # logits N×M → the R classes to explain for each image, N×R


def one_per_image(target: int | Tensor | Sequence[int], images: Tensor) -> Tensor:
    """Convert a target to one class index per image: int64, N×1.

    Raises:
        UserError: The target is neither an index nor a list of indices.

    Example:
        >>> one_per_image(3, torch.zeros(2, 3, 8, 8)).tolist()
        [[3], [3]]
    """
    try:
        classes = torch.as_tensor(target, device=images.device)
    except (OverflowError, RuntimeError, TypeError, ValueError):
        classes = torch.tensor(math.nan)
    if not _are_indices(classes):
        raise UserError(f"target={cut(repr(target), 60)}: give a class index, or one for each image.")
    classes = classes.long()
    return (classes.expand(len(images)).clone() if classes.dim() == 0 else classes)[:, None]


def _are_indices(classes: Tensor) -> bool:
    """Whether a tensor holds one whole number, or a list of them."""
    whole = not (classes.is_floating_point() or classes.is_complex() or classes.dtype == torch.bool)
    ordinary = classes.layout == torch.strided and not classes.is_quantized and not classes.is_meta
    return whole and ordinary and classes.dim() <= 1


def choose(logits: Tensor, class_idx: Tensor | Chooser | None, top_k: int) -> Tensor:
    """Choose the R classes to explain for each image: int64, N×R.

    Args:
        logits: The network's output, N×M.
        class_idx: The classes, N×R, or a function that chooses them from the logits. None chooses the `top_k` classes
            with the highest scores.
        top_k: Number R of classes if `class_idx` is None; a number above M counts as M.

    Raises:
        UserError: The classes do not fit the images or the network.

    Example:
        >>> choose(torch.tensor([[0.1, 0.9, 0.5]]), None, top_k=2).tolist()
        [[1, 2]]
    """
    n, count = logits.shape
    if class_idx is None:
        if isinstance(top_k, bool) or not isinstance(top_k, Integral) or top_k < 1:
            raise UserError(f"top_k={top_k}: must be a whole number of at least 1.")
        return logits.detach().topk(min(top_k, count), dim=1).indices
    try:
        given = class_idx(logits.detach()) if callable(class_idx) else class_idx
        chosen = torch.as_tensor(given, device=logits.device)
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a function of the user's raises
        raise UserError(f"class_idx: N×R classes are needed, as a tensor: {first_line(error)}") from error
    if chosen.numel() == 0:
        raise UserError("class_idx: there are no classes or no images to explain.")
    if chosen.is_floating_point() or chosen.dtype == torch.bool:
        raise UserError(
            f"class_idx: got {str(chosen.dtype).removeprefix('torch.')}, but indices of classes are needed."
        )
    if chosen.dim() != 2:
        raise UserError(f"class_idx: got {tuple(chosen.shape)}, but N×R classes are needed.")
    if chosen.shape[0] != n:
        raise UserError(f"target: {n} images need one class each (or one for all), not {chosen.shape[0]}.")
    if int(chosen.min()) < 0 or int(chosen.max()) >= count:
        raise UserError(f"target: the network has the classes 0 to {count - 1}.")
    return chosen.long().clone()  # a tensor made in inference mode cannot be used for a gradient
