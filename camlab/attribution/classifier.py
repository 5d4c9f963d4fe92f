"""A network as a classifier: how its output is computed, and which part of its output is the logits."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from camlab.attribution.network_input import described, network_dtype, output_of
from camlab.errors import UserError, first_line, listed

# Which part of an odd output is the logits: a key or attribute, an index, or a function of the output.
Output = str | int | Callable[[object], Tensor]


@dataclass(frozen=True)
class Classifier:
    """A network whose output holds logits.

    Attributes:
        network: The network, not wrapped.
        output: Which part of its output is the logits; None if `logits_of` finds it.

    Example:
        >>> Classifier(nn.Flatten()).logits(torch.zeros(2, 1, 2, 2)).shape
        torch.Size([2, 4])
    """

    network: nn.Module
    output: Output | None = None

    def __post_init__(self) -> None:
        check_output(self.output)

    def logits(self, images: Tensor, rows: int | None = None) -> Tensor:
        """Run the network and return its logits, N×M.

        Args:
            images: The network's input; a copy of it is given to the network, which may change it.
            rows: Number N of rows that are expected, if it is not the number of images.

        Raises:
            UserError: The network cannot take the images, or its output holds no logits.
        """
        given = output_of(self.network, images.clone())
        return logits_of(given if self.output is None else _chosen(given, self.output), rows or len(images))


def check_output(output: object) -> None:
    """Refuse what names no part of an output.

    Raises:
        UserError: It is neither a key, an index, a function nor None.

    Example:
        >>> check_output(1.5)
        Traceback (most recent call last):
        ...
        camlab.errors.UserError: output: got float, but a key, an index or a function of the output is needed.
    """
    if output is not None and not isinstance(output, (str, int)) and not callable(output):
        raise UserError(
            f"output: got {type(output).__name__}, but a key, an index or a function of the output is needed."
        )


def count_classes(network: nn.Module, side: int) -> int:
    """Count a network's classes by running it on an empty picture of this side.

    Raises:
        UserError: The network cannot take the picture, or gives no logits.

    Example:
        >>> count_classes(nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), 2)
        5
    """
    with torch.no_grad():
        return Classifier(network).logits(torch.zeros(1, 3, side, side, dtype=network_dtype(network))).shape[1]


def logits_of(output: object, rows: int) -> Tensor:
    """Return the logits that a network's output holds, N×M.

    A vector is a score for each image, N×1, or, if there is one image, its M scores.

    The output may be the logits; a dict or an object with `logits` (as in transformers) or with a single N×M tensor; or
    a tuple or list whose first element holds them, unless another element has another number of columns: then the
    first may be features.

    Raises:
        UserError: The output holds no logits, or not those of N images.

    Example:
        >>> logits_of((torch.zeros(2, 10), torch.zeros(2, 8, 8)), 2).shape
        torch.Size([2, 10])
    """
    is_score = isinstance(output, Tensor) and output.dim() == 0 and rows == 1  # of one image, squeezed
    found = _found(output[None] if is_score else output)  # type: ignore[index]
    if found is None:
        raise UserError(f"The network gives {_described(output)} instead of N×M logits; {_way_out(output)}")
    if found.dim() == 1:
        found = found[None] if rows == 1 else found[:, None]
    if len(found) != rows:
        raise UserError(f"The network gives {described(found)} for {rows} images; each image needs a row of scores.")
    return found


def _found(output: object) -> Tensor | None:
    if isinstance(output, Tensor):
        return output if output.dim() in (1, 2) and output.is_floating_point() else None
    named = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if named is not None:
        return _found(named)
    if isinstance(output, Mapping):
        candidates = [logits for value in output.values() if (logits := _found_tensor(value)) is not None]
        return candidates[0] if len(candidates) == 1 else None
    if not isinstance(output, (tuple, list)) or not output:
        return None
    first, others = _found(output[0]), map(_found_tensor, output[1:])
    is_clear = first is not None and all(other is None or other.shape[1:] == first.shape[1:] for other in others)
    return first if is_clear else None


def _found_tensor(value: object) -> Tensor | None:
    return _found(value) if isinstance(value, Tensor) else None


def _chosen(output: object, part: Output) -> object:
    """The part of an output that the user names.

    Raises:
        UserError: The output has no such part.
    """
    if callable(part):
        try:
            return part(output)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever the function raises
            raise UserError(
                f"output: the function cannot take what the network gives, {_described(output)}: {first_line(error)}"
            ) from error
    try:
        if isinstance(part, str) and not isinstance(output, Mapping):
            return getattr(output, part)
        if isinstance(output, (Mapping, tuple, list)):
            return output[part]  # type: ignore[index]
        raise TypeError("not a container")
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        raise UserError(
            f"output={part}: the network gives {_described(output)}, which has no such part. Give a key, an index, or a"
            " function that returns N×M logits."
        ) from error


def _described(output: object) -> str:
    """Describe an output for messages.

    Example:
        >>> _described({"out": torch.zeros(2, 21, 8, 8), "aux": None}), _described([torch.zeros(2)])
        ('a dict with out, aux', 'a list of 1')
    """
    if isinstance(output, Tensor):
        return described(output)
    kind = type(output).__name__
    if isinstance(output, Mapping):
        return f"a {'dict' if isinstance(output, dict) else kind} with {listed([str(key) for key in output])}"
    return f"a {kind} of {len(output)}" if isinstance(output, (tuple, list)) else kind


def _way_out(output: object) -> str:
    """What a network that gives no logits is, and what can be done."""
    first: object = output[0] if isinstance(output, (tuple, list)) and output else output
    if isinstance(first, Mapping) and "boxes" in first:
        return "it is a detector. Give a classifier, such as the detector's backbone with a head."
    is_list = isinstance(output, (tuple, list))
    parts = output.items() if isinstance(output, Mapping) else enumerate(output) if is_list else ()  # type: ignore[arg-type, var-annotated]
    if named := [f"output={key}" for key, value in parts if _found_tensor(value) is not None]:
        return f"say which part holds the logits: {' or '.join(named)}."
    values = list(first.values()) if isinstance(first, Mapping) else [first]
    if any(isinstance(value, Tensor) and value.dim() == 4 and value.shape[-1] > 1 for value in values):
        return (
            "it looks like a segmenter, which scores each pixel. Give a classifier, or in Python"
            " output=FUNCTION that makes N×M scores of the output."
        )
    return "is it a classifier? In Python, output=KEY, INDEX or FUNCTION picks the logits of an output."
