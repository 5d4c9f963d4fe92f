"""What the logits lose when cells of the features are set to zero: exact, for all classes, without a forward pass.

Only for networks that end in global average pooling and one linear layer. It favours CAM by construction: it describes
the features, and is no evidence that the network needs what is hot in the picture.
"""

from typing import Literal

import torch
from torch import Tensor

from camlab.errors import UserError, cut
from camlab.scores.checked import check_same_images, check_tensors, check_whole, checked_maps
from camlab.scores.removal import STEPS, RemovalCurves, cell_order

Scale = Literal["probability", "logit"]


def feature_srg(
    cam_NMHW: Tensor,
    bias_M: Tensor | None,
    maps_NHW: Tensor,
    target: Tensor,
    steps: int = STEPS,
    scale: Scale = "probability",
    seed: int = 0,
    numbers: Tensor | None = None,
) -> Tensor:
    """Symmetric relevance gain on features: AUC(lowest cells first) - AUC(highest cells first).

    With the feature cells S set to zero, logit_c = b_c + 1/Z Σ_{i∉S} M_c(i), where M_c is the CAM of class c. Chance is
    0. On logits no order beats that of the signed CAM.

    Args:
        cam_NMHW: Signed CAM of all classes, N×M×h×w (`Explanation.cam_of_all_classes`).
        bias_M: Bias of the last linear layer, M; None if it has none.
        maps_NHW: Signed maps on the same grid, N×h×w, whose order is scored.
        target: Class of each image, int64, N.
        steps: Number K of steps; by step s, round(s·Z/K) cells are gone.
        scale: Whether the class probability or the class logit is followed.
        seed: Random seed of the order of tied cells.
        numbers: Numbers of the images in their set, as in `Passes`.

    Returns:
        One value for each image, N: in [-1, 1] for probabilities, in units of the logit otherwise.

    Raises:
        UserError: The maps are not finite, or not on the grid of the CAM; the classes or the bias do not fit it.

    Example:
        >>> cam = torch.tensor([[[[3.0, 1.0]]]])
        >>> feature_srg(cam, None, cam[:, 0], torch.tensor([0]), steps=2, scale="logit").tolist()
        [0.5]
    """
    return feature_curves(cam_NMHW, bias_M, maps_NHW, target, steps, scale, seed, numbers).srg


def _check_head(cam_NMHW: Tensor, bias_M: Tensor | None, target: Tensor) -> None:
    n, m = cam_NMHW.shape[:2]
    is_whole = isinstance(target, Tensor) and not target.is_floating_point() and target.dtype != torch.bool
    if not is_whole or target.shape != (n,):
        raise UserError(f"target: one class index for each of {n} images is needed, int64.")
    if n and not 0 <= int(target.min()) <= int(target.max()) < m:
        raise UserError(f"target: the CAM has the classes 0 to {m - 1}.")
    if bias_M is not None:
        check_tensors(bias=bias_M)
        if bias_M.shape != (m,):
            raise UserError(f"bias: {tuple(bias_M.shape)} values for {m} classes.")


def feature_curves(
    cam_NMHW: Tensor,
    bias_M: Tensor | None,
    maps_NHW: Tensor,
    target: Tensor,
    steps: int = STEPS,
    scale: Scale = "probability",
    seed: int = 0,
    numbers: Tensor | None = None,
) -> RemovalCurves:
    """Class probabilities or logits while feature cells are set to zero; arguments and errors as for `feature_srg`."""
    if not isinstance(cam_NMHW, Tensor) or cam_NMHW.dim() != 4:
        raise UserError("cam: the signed CAM of all classes, N×M×h×w, is needed.")
    if scale not in ("probability", "logit"):
        raise UserError(f"scale={cut(str(scale), 60)}: choose from probability and logit.")
    signed = checked_maps(maps_NHW).to(cam_NMHW.device)
    check_same_images(signed, cam_NMHW, "maps and CAM")
    if signed.shape[1:] != cam_NMHW.shape[2:]:
        own, features = (f"{grid[0]}×{grid[1]}" for grid in (signed.shape[1:], cam_NMHW.shape[2:]))
        raise UserError(f"maps: {own} cells, but the features have {features}. Only maps on their grid can be scored.")
    check_whole(steps, "steps", least=1)
    _check_head(cam_NMHW, bias_M, target)
    n, cells = len(signed), signed.shape[1] * signed.shape[2]
    counts = torch.tensor(sorted({round(step * cells / steps) for step in range(steps + 1)}), device=signed.device)
    parts = checked_maps(cam_NMHW.flatten(2), "CAM") / cells
    order = cell_order(signed, seed, numbers)[:, None].expand_as(parts)
    curves = []
    for of_cells in (order, order.flip(2)):
        lost = torch.cat([torch.zeros_like(parts[..., :1]), parts.gather(2, of_cells).cumsum(dim=2)], dim=2)
        logits = parts.sum(dim=2, keepdim=True) - lost[..., counts]  # N×M×P
        logits = logits if bias_M is None else logits + bias_M.detach()[:, None]
        values = logits if scale == "logit" else logits.softmax(dim=1) if logits.shape[1] > 1 else logits.sigmoid()
        curves.append(values[torch.arange(n, device=signed.device), target])
    return RemovalCurves(counts / cells, *curves)
