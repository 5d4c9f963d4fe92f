"""Checks of all that Lightning and camlab restore from a checkpoint, before anything is restored from it.

torch does not check what it restores: for example, its fused optimizers would read past the end of a tensor that is
smaller than its parameter.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from camlab.errors import cut
from camlab.models.weights import check_weights, unusual_kind
from camlab.training.classifier import CHECKPOINT_KEY, Classifier, step_with_zeros

_COUNTS = frozenset(
    ["ready", "started", "processed", "completed", "is_last_batch", "_batches_that_stepped", "epoch", "position"]
)
_LARGEST_COUNT = 2**53  # larger ones lose digits as a float


def check_progress(content: Mapping[str, Any], run_key: str) -> None:
    """Refuse a checkpoint whose progress, metrics or random state cannot be restored.

    Args:
        content: Content of the checkpoint.
        run_key: Key of the part that describes the run.

    Raises:
        ValueError: The message names the entry. Other exceptions mean that an entry is missing or has another type.
    """
    for name, tensor in _tensors(content):
        if kind := unusual_kind(tensor):
            raise ValueError(f"{cut(name, 80)} is {kind}")
    _check_counts(content["loops"], "loops")
    _check_rows(content[run_key]["rows"])
    torch.Generator().set_state(content[run_key]["rng_state"])  # torch checks it
    if not _is_number(best := content[CHECKPOINT_KEY]["best_acc"]) or not 0 <= best <= 1:
        raise ValueError(f"best_acc cannot be {_quoted(best)}")
    if not _is_number(rate := content[CHECKPOINT_KEY].get("last_rate", 0.0)):
        raise ValueError(f"last_rate cannot be {_quoted(rate)}")
    for name, state in content["callbacks"].items():
        _check_callback(state, name)
    for name, value in content.get("MixedPrecision", {}).items():  # the scale of the loss
        if not _is_number(value):
            raise ValueError(f"MixedPrecision.{cut(str(name))} cannot be {_quoted(value)}")


def check_states(content: Mapping[str, Any], file: Path, classifier: Classifier) -> None:
    """Refuse a checkpoint whose weights, optimizer or schedule do not fit those of a module.

    Args:
        content: Content of the checkpoint.
        file: The checkpoint, for messages.
        classifier: The module, with the optimizer and the schedule that the checkpoint was trained with.

    Raises:
        UserError: A weight is not a finite floating-point number.
        ValueError: The message names the entry. Other exceptions mean that an entry is missing or has another type.
    """
    check_weights(content["state_dict"], classifier.state_dict(), f"resume={file}")
    optimizer, schedule = classifier.rehearsal()
    (state,), schedules = content["optimizer_states"], content["lr_schedulers"]
    for found, group in zip(state["param_groups"], optimizer.param_groups, strict=True):
        _check_options(found, {key: value for key, value in group.items() if key != "params"}, "param_groups")
    _check_optimizer(state, optimizer)
    if len(schedules) != (schedule is not None):
        raise ValueError(f"it holds {len(schedules)} learning rate schedules")
    if schedule is not None:
        _check_options(schedules[0], schedule.state_dict(), "lr_schedulers", dir(schedule))


def _check_optimizer(state: Mapping[str, Any], optimizer: Optimizer) -> None:
    """Compare an optimizer's state with the one that the same optimizer has after a step."""
    optimizer.load_state_dict({"state": {}, "param_groups": state["param_groups"]})
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    step_with_zeros(optimizer)
    for index, found in state["state"].items():
        if not isinstance(found, dict):
            raise ValueError(f"the state of parameter {index} cannot be {_quoted(found)}")
        for key, fresh in optimizer.state[parameters[index]].items() if found else ():
            _check_state(found[key], fresh, f"{key} of parameter {index}")


def _check_state(found: Any, fresh: Any, name: str) -> None:
    if not isinstance(fresh, Tensor):
        return _check_value(found, fresh, name)
    if not isinstance(found, Tensor) or found.is_floating_point() != fresh.is_floating_point():
        raise ValueError(f"{name} cannot be {_quoted(found)}")
    if found.shape != fresh.shape:
        raise ValueError(f"{name} has the shape {_quoted(found)}, but {_quoted(fresh)} is needed")
    # Squares of gradients can be too large for float16, which slows the training but does not break it.
    if (found.isnan() if found.dtype == torch.float16 else ~found.isfinite()).any():
        raise ValueError(f"{name} holds NaN or infinite numbers")
    if name.startswith("step ") and found.numel() == 1 and found < 0:
        raise ValueError(f"{name} is negative")
    return None


def _check_options(found: Any, fresh: Mapping[str, Any], name: str, reserved: Any = ()) -> None:
    """Compare settings with those of a new object; it may have others, but none that replace its methods."""
    for key, value in found.items():
        if key in fresh:
            _check_value(value, fresh[key], f"{name}.{key}")
        elif key in reserved:
            raise ValueError(f"{name} cannot have {_quoted(key)}")


def _check_value(found: Any, fresh: Any, name: str) -> None:
    """Refuse a value of another kind than the one that a new object has; a switch or a missing number may be null."""
    if isinstance(fresh, Mapping):
        _check_options(found, fresh, name)
    elif isinstance(fresh, (list, tuple)) and isinstance(found, (list, tuple)) and len(found) == len(fresh):
        for one, other in zip(found, fresh, strict=True):
            _check_value(one, other, name)
    elif isinstance(fresh, bool) or fresh is None:
        if not (found is None or isinstance(found, bool) or (fresh is None and _is_number(found))):
            raise ValueError(f"{name} cannot be {_quoted(found)}")
    elif isinstance(fresh, (int, float)):
        if not _is_number(found, finite=math.isfinite(fresh)):
            raise ValueError(f"{name} cannot be {_quoted(found)}")
    elif type(found) is not type(fresh):
        raise ValueError(f"{name} cannot be {_quoted(found)}")


def _check_counts(node: Any, name: str) -> None:
    """Check the progress of Lightning's loops: sections in sections, and counts in them."""
    for key, value in enumerate(node) if isinstance(node, list) else node.items():
        if key not in _COUNTS:
            _check_counts(value, str(key))
        elif not isinstance(value, int) or not 0 <= value <= _LARGEST_COUNT:
            raise ValueError(f"{cut(name)}.{key} cannot be {_quoted(value)}")


def _check_rows(rows: Any) -> None:
    for row in rows:
        for key, value in row.items():
            number = _is_number(value, finite=key in ("step", "epoch"))
            if not isinstance(key, str) or not number or (key == "step" and not 0 <= value <= _LARGEST_COUNT):
                raise ValueError(f"rows: {_quoted(key)} cannot be {_quoted(value)}")
        row["step"]


def _check_callback(state: Any, name: str) -> None:
    """Check the entries that Lightning's checkpoints and its early stopping compare and count."""
    for key, value in state.items():
        if str(key).endswith(("_score", "kth_value")):
            right = value is None or (isinstance(value, Tensor) and value.dim() == 0 and value.is_floating_point())
        elif str(key).endswith(("_count", "_epoch", "patience")):
            right = isinstance(value, int)
        else:
            continue
        if not right:
            raise ValueError(f"{cut(name)}: {key} cannot be {_quoted(value)}")


def _tensors(node: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield all tensors in nested dictionaries and lists, with their dotted names."""
    if isinstance(node, Tensor):
        yield name, node
    elif isinstance(node, (Mapping, list, tuple)):
        for key, child in node.items() if isinstance(node, Mapping) else enumerate(node):
            yield from _tensors(child, f"{name}.{key}" if name else str(key))


def _is_number(value: Any, finite: bool = True) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) <= torch.finfo(torch.float64).max or not (finite or isinstance(value, int))


def _quoted(value: Any) -> str:
    """A value for a message, in a readable length; a tensor by its shape."""
    return ("×".join(map(str, value.shape)) or "a scalar") if isinstance(value, Tensor) else cut(repr(value))
