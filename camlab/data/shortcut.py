"""Planted shortcuts: marks in pictures that give a class away, so that it is known what a network could rely on.

A mark is pasted into uint8 pictures in whole numbers only, so that every device gives the same pixels. Each class that
has a mark has one of its own colour.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from camlab.errors import UserError, did_you_mean, listed

KINDS = ("patch", "stripe", "tint")


@dataclass(frozen=True)
class Shortcut:
    """A mark that is pasted into pictures of some classes.

    Attributes:
        kind: `patch`, a square checkerboard near a corner, an eighth of the picture wide; `stripe`, a dashed line from
            the left to the right near the upper or lower edge, a sixteenth of the picture thick; or `tint`, a colour
            mixed into the whole picture, a quarter of it.
        classes: Indices of the classes that have a mark.
        strength: Share of the pictures of each of these classes that carry it, from 0 to 1.
        seed: Seed of the choice of pictures and of the marks' places.
    """

    kind: str
    classes: tuple[int, ...]
    strength: float
    seed: int = 0

    @property
    def has_place(self) -> bool:
        """Whether the mark is at one place of the picture, so that heat can be on it or elsewhere."""
        return self.kind != "tint"

    @property
    def colours(self) -> Tensor:
        """Colour of each class's mark: evenly spaced hues of half the colour circle, from magenta on. uint8, K×3.

        A mark consists of its colour and the complement, which a mirrored picture exchanges. No class's colour is the
        complement of another's, so that a mirrored mark is still that of its class.
        """
        hues = [(5 / 6 + k / (2 * len(self.classes))) % 1 for k in range(len(self.classes))]
        return torch.tensor([[round(255 * part) for part in colorsys.hsv_to_rgb(hue, 1, 1)] for hue in hues]).byte()


@dataclass(frozen=True)
class Marks:
    """The marks of N pictures.

    Attributes:
        of: Position in `Shortcut.classes` of the class whose mark a picture carries, int64, N; -1 if it carries none.
        boxes: Box around the mark (top, left, bottom, right) in pixels; bottom and right are exclusive. int64, N×4.
    """

    of: Tensor
    boxes: Tensor

    def __len__(self) -> int:
        return len(self.of)

    def __getitem__(self, index: Tensor) -> "Marks":
        return Marks(self.of[index], self.boxes[index])

    def to(self, device: torch.device) -> "Marks":
        """Return the marks on another device."""
        return Marks(self.of.to(device), self.boxes.to(device))

    def masks(self, size: tuple[int, int]) -> Tensor:
        """Draw masks of the marks, bool, N×height×width; False everywhere for a picture without a mark.

        Example:
            >>> Marks(torch.tensor([0, -1]), torch.tensor([[0, 1, 1, 2]] * 2)).masks((1, 3)).int().tolist()
            [[[0, 1, 0]], [[0, 0, 0]]]
        """
        y, x = (torch.arange(side, device=self.of.device) for side in size)
        top, left, bottom, right = (edge[:, None] for edge in self.boxes.unbind(1))
        rows, columns = (y >= top) & (y < bottom), (x >= left) & (x < right)
        return rows[:, :, None] & columns[:, None] & (self.of >= 0)[:, None, None]


def class_indices(given: Sequence[str | int] | str | int | None, class_names: Sequence[str]) -> tuple[int, ...]:
    """Find the classes that are given by name or, where no class is named by a number, by index; None is the first.

    Raises:
        UserError: There is no such class; the message names those that there are.

    Example:
        >>> class_indices(["dog", 0], ("cat", "dog")), class_indices(None, ("cat", "dog"))
        ((1, 0), (0,))
        >>> class_indices([3], ("1", "2", "3", "10"))
        (2,)
    """
    if given is None:
        return (0,)
    words = [given] if isinstance(given, (str, int)) else list(given)
    by_index = not any(name.lstrip("-").isdecimal() for name in class_names)
    found = []
    for word in words:
        if str(word) in class_names:
            found.append(list(class_names).index(str(word)))
        elif by_index and isinstance(word, int) and not isinstance(word, bool) and 0 <= word < len(class_names):
            found.append(word)
        else:
            hint = did_you_mean(str(word), class_names)
            raise UserError(
                f"data.shortcut_classes={word}: no such class. {hint}Give names or indices of {listed(class_names)}."
            )
    if not found:
        raise UserError("data.shortcut_classes=[]: no class would have a mark. Give one, or data.shortcut=null.")
    return tuple(dict.fromkeys(found))


def are_names(given: Sequence[str | int] | str | int | None, class_names: Sequence[str]) -> bool:
    """Whether the classes of a shortcut are given by name, as `class_indices` reads them.

    Example:
        >>> are_names("dog", ("cat", "dog")), are_names(["dog", 0], ("cat", "dog")), are_names(None, ("cat", "dog"))
        (True, False, False)
    """
    words = [given] if isinstance(given, (str, int)) else given or [-1]
    return all(str(word) in class_names for word in words)


def carriers(labels: Tensor, shortcut: Shortcut, generator: torch.Generator) -> Tensor:
    """Choose the pictures that carry the mark of their own class, of each class the share that `strength` says.

    Pictures that are chosen at one strength are also chosen at every higher one.

    Args:
        labels: Class indices, int64, N.
        shortcut: The shortcut.
        generator: Source of the random choice.

    Returns:
        Position in `shortcut.classes` for each picture, int64, N; -1 for one without a mark.

    Example:
        >>> shortcut = Shortcut("patch", (1,), strength=0.5)
        >>> carriers(torch.tensor([0, 1, 1, 0]), shortcut, torch.Generator().manual_seed(0)).sort().values.tolist()
        [-1, -1, -1, 0]
    """
    drawn, of = torch.rand(len(labels), generator=generator), torch.full((len(labels),), -1)
    for position, label in enumerate(shortcut.classes):
        own = torch.nonzero(labels == label).flatten()
        of[own[drawn[own].argsort()[: round(shortcut.strength * len(own))]]] = position
    return of


def draw_boxes(n: int, size: tuple[int, int], kind: str, generator: torch.Generator) -> Tensor:
    """Draw the places of n marks: boxes (top, left, bottom, right) in pixels, int64, n×4.

    Args:
        n: Number of pictures.
        size: Height and width of the pictures.
        kind: Kind of the mark.
        generator: Source of the random places.
    """
    height, width = size
    ends = torch.randint(2, (n, 2), generator=generator)  # 0: near the upper or left edge; 1: near the other one
    share = torch.rand((n, 2), generator=generator)
    if kind == "tint":
        return torch.tensor([0, 0, height, width]).repeat(n, 1)
    if kind == "stripe":
        thickness = max(1, height // 16)
        away = (share[:, 0] * (height // 8 + 1)).long().clamp(max=height - thickness)
        top = torch.where(ends[:, 0] == 0, away, height - thickness - away)
        return torch.stack([top, torch.zeros_like(top), top + thickness, torch.full_like(top, width)], dim=1)
    side = min(max(2, height // 8), height, width)
    away = (share * (height // 16 + 1)).long().clamp(max=min(height, width) - side)
    corner = torch.where(ends == 0, away, torch.tensor([height, width]) - side - away)
    return torch.cat([corner, corner + side], dim=1)


def paste(images: Tensor, marks: Marks, shortcut: Shortcut) -> Tensor:
    """Paste marks into pictures.

    Args:
        images: Pictures, uint8, N×3×H×W.
        marks: Their marks, on the same device.
        shortcut: What the marks look like.

    Returns:
        A copy, uint8, N×3×H×W; pictures without a mark are unchanged.
    """
    height, width = images.shape[-2:]
    colour = shortcut.colours.to(images.device)[marks.of.clamp(min=0)][:, :, None, None]
    inside = marks.masks((height, width))[:, None]
    if shortcut.kind == "tint":
        return torch.where(inside, ((3 * images.int() + colour.int() + 2) // 4).byte(), images)
    y, x = (torch.arange(side, device=images.device) for side in (height, width))
    top, left, bottom, _ = (edge[:, None] for edge in marks.boxes.unbind(1))
    thickness = (bottom - top).clamp(min=1)
    if shortcut.kind == "patch":
        light = (2 * (y - top) // thickness)[:, :, None] + (2 * (x - left) // thickness)[:, None]
    else:
        light = (x // thickness)[:, None].expand(-1, height, -1)
    pattern = torch.where((light % 2 == 0)[:, None], colour, 255 - colour)
    return torch.where(inside, pattern, images)
