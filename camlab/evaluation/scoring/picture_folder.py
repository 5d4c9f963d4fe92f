"""Read a folder of pictures with masks, or boxes in a CSV file, or neither; classes are read from its subfolders.

```
photos/
    cat/x.jpg          the folder names the true class, if it is one of the network's
    cat/x_mask.png     mask of the picture beside it; or cat/masks/x.png, or masks/cat/x.png; black is background
    boxes.csv          file,left,top,right,bottom[,class] in pixels of the picture; several lines for several objects
```
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from camlab.errors import UserError, cut, did_you_mean, first_line, plain
from camlab.evaluation.scoring.box_file import BOXES, BoxesOf, read_boxes
from camlab.evaluation.scoring.picture_set import PictureSet, notes_on, spread
from camlab.models.preprocess import Preprocess
from camlab.scores.boxes import mask_boxes
from camlab.storage.mask_pictures import read_mask
from camlab.storage.pictures import MASKS, find_pictures, list_files, read_picture

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Read:
    """A picture as the network sees it, its mask, and its boxes (top, left, bottom, right)."""

    square: np.ndarray
    mask: np.ndarray
    boxes: list[tuple[int, int, int, int]]
    complaint: str | None = None
    is_without_box: bool = False  # although boxes are given


def read_folder(place: str, n: int, preprocess: Preprocess, class_names: Sequence[str]) -> PictureSet:
    """Read n pictures, evenly spread over those that are found.

    Args:
        place: A picture, a folder or a pattern, as for `camlab.explain`.
        n: Number of pictures; a number above that of the folder takes all of them, and a note says so.
        preprocess: Preparation of the network's input.
        class_names: The network's classes.

    Raises:
        UserError: There are no pictures that can be read, `boxes.csv` is damaged, or a class does not exist.
    """
    files = find_pictures(place, tell=False)
    top = Path(place).expanduser()
    if not top.is_dir():  # a picture, or a pattern, which begins with a folder
        top = next(parent for parent in top.parents if parent.is_dir())
    listing = list_files(top, below=True)
    files = [path for path in files if path not in set(listing.masks)]
    masks = {_key(path, top): path for path in listing.masks}
    boxes = read_boxes(top / BOXES, class_names) if (top / BOXES).exists() else {}
    _check_files_of_boxes(boxes, [*files, *listing.pictures], top)
    chosen = spread(len(files), n)
    skipped: list[str] = []
    with ThreadPoolExecutor() as pool:
        jobs = [
            pool.submit(_read, files[i], masks.get(_key(files[i], top)), boxes.get(_name(files[i], top)), preprocess)
            for i in chosen
        ]
    found: dict[int, _Read] = {}
    for i, job in zip(chosen, jobs, strict=True):
        try:
            found[i] = job.result()
        except UserError as error:
            skipped.append(first_line(error))
            log.warning("Skipped: %s", error)
    if not found:
        raise UserError(f"images={place}: none of the pictures can be read. {skipped[0]}")
    kept = [files[i] for i in found]
    labels, told = _labels(kept, top, boxes, class_names)
    asked = (len(files), n, len(kept))
    return _assembled(found, [_name(path, top) for path in kept], plain(place), labels, asked, told, skipped)


def _assembled(
    found: dict[int, _Read],
    names: list[str],
    place: str,
    labels: Tensor | None,
    asked: tuple[int, int, int],
    told: list[str],
    skipped: list[str],
) -> PictureSet:
    read = list(found.values())
    masks = torch.from_numpy(np.stack([each.mask for each in read]))
    known = masks if masks.any() else None
    most = max(len(each.boxes) for each in read)
    boxes = torch.zeros(len(read), most, 4, dtype=torch.int64)
    for row, each in zip(boxes, read, strict=True):
        if each.boxes:
            row[: len(each.boxes)] = torch.tensor(each.boxes)
    complaints = [each.complaint for each in read if each.complaint]
    if complaints:
        masks_are = "1 mask is" if len(complaints) == 1 else f"{len(complaints)} masks are"
        told = [*told, f"{masks_are} not used, such as {complaints[0]}"]
    if unseen := [name for name, each in zip(names, read, strict=True) if each.is_without_box]:
        said = "1 picture has" if len(unseen) == 1 else f"{len(unseen)} pictures have"
        told = [*told, f"{said} boxes, but none in what the network sees, such as {plain(unseen[0])}."]
    squares = np.stack([each.square for each in read]).transpose(0, 3, 1, 2)
    return PictureSet(
        torch.from_numpy(np.ascontiguousarray(squares)),
        tuple(names),
        torch.tensor(list(found)),
        place,
        labels,
        known,
        boxes if most and known is not None else None,
        (*notes_on(*asked, known), *told),
        tuple(skipped),
    )


def _read(path: Path, mask: Path | None, boxes: BoxesOf | None, preprocess: Preprocess) -> _Read:
    picture = read_picture(path)
    square = preprocess.prepare(picture)
    side = preprocess.image_size
    nothing, complaint = np.zeros((side, side), bool), None
    if mask is not None:
        try:
            visible = _visible_mask(mask, picture, preprocess)
            if visible.any():
                return _Read(square, visible, mask_boxes(torch.from_numpy(visible)[None]).tolist())
        except UserError as error:
            complaint = first_line(error)
    if boxes is None:
        return _Read(square, nothing, [], complaint)
    placed = [_placed(box, preprocess.visible_box(*picture.size), side) for box in boxes.boxes]
    inside = [box for box in placed if box[0] < box[2] and box[1] < box[3]]
    for top, left, bottom, right in inside:
        nothing[top:bottom, left:right] = True
    return _Read(square, nothing, inside, complaint, is_without_box=not inside)


def _visible_mask(path: Path, picture: Image.Image, preprocess: Preprocess) -> np.ndarray:
    """Mask of what the network sees: bool S×S.

    Raises:
        UserError: The file cannot be read, or the mask has another shape than its picture.
    """
    on = read_mask(path)
    (own_height, own_width), (width, height) = on.shape, picture.size
    if abs(own_width * height - own_height * width) > max(on.shape) * max(picture.size) * 0.01:
        raise UserError(f"{path.name}: {own_width}×{own_height} pixels for a picture of {width}×{height}.")
    size = (preprocess.image_size, preprocess.image_size)
    box = preprocess.visible_box(own_width, own_height)
    shares = Image.fromarray((on * 255).astype(np.uint8)).resize(size, Image.Resampling.BILINEAR, box=box)
    return np.asarray(shares) > 127


def _placed(
    box: tuple[float, float, float, float], visible: tuple[float, float, float, float], side: int
) -> tuple[int, int, int, int]:
    """Turn a box (left, top, right, bottom) of the picture into one of the network's input (top, left, bottom, right).

    Example:
        >>> _placed((50, 0, 150, 100), (50, 0, 250, 200), 100)
        (0, 0, 50, 50)
    """
    scale = side / (visible[2] - visible[0]), side / (visible[3] - visible[1])
    left, right = (round((x - visible[0]) * scale[0]) for x in (box[0], box[2]))
    top, bottom = (round((y - visible[1]) * scale[1]) for y in (box[1], box[3]))
    return max(top, 0), max(left, 0), min(bottom, side), min(right, side)


def _labels(
    files: Sequence[Path], top: Path, boxes: dict[str, BoxesOf], class_names: Sequence[str]
) -> tuple[Tensor | None, list[str]]:
    """True classes from `boxes.csv` or the subfolders, and a sentence if they are unknown.

    Raises:
        UserError: Some folders are classes of the network, and others are not; only some pictures have a class; or
            `boxes.csv` contradicts a folder.
    """
    given = [boxes[name].class_idx if (name := _name(path, top)) in boxes else None for path in files]
    folders = [path.relative_to(top).parts[0] if path.parent != top else "" for path in files]
    for path, class_idx, folder in zip(files, given, folders, strict=True):
        if class_idx is not None and folder in class_names and folder != class_names[class_idx]:
            named = f"{cut(_name(path, top))} is {cut(class_names[class_idx])}"
            raise UserError(
                f"{top / BOXES}: {named} there, but lies in the folder of another class. Correct one of them."
            )
    if all(class_idx is not None for class_idx in given):
        return torch.tensor(given), []
    if any(class_idx is not None for class_idx in given):
        folders = [folder if own is None else class_names[own] for folder, own in zip(folders, given, strict=True)]
        if without := [path for path, folder in zip(files, folders, strict=True) if folder not in class_names]:
            raise UserError(
                f"{top / BOXES}: it gives the classes of some pictures, but not that of {cut(_name(without[0], top))}."
                " Give all of them, or none."
            )
    unknown = [folder for folder in folders if folder not in class_names]
    if not unknown:
        return torch.tensor([list(class_names).index(folder) for folder in folders]), []
    if len(unknown) < len(folders):
        wrong = f"{top.name}/{cut(unknown[0])}" if unknown[0] else f"the folder {top.name} itself"
        hint = did_you_mean(unknown[0], class_names)
        raise UserError(
            f"images={top}: {wrong} is no class of the network, but other folders are. {hint}Rename it, or leave its"
            " pictures out."
        )
    return None, ["The true classes are unknown, so all maps are of the predicted classes."]


def _check_files_of_boxes(boxes: dict[str, BoxesOf], files: Sequence[Path], top: Path) -> None:
    known = {_name(path, top) for path in files}
    if missing := [name for name in boxes if name not in known]:
        raise UserError(f"{top / BOXES}: {cut(missing[0])} is no picture of that folder. Correct or remove its line.")


def _name(path: Path, top: Path) -> str:
    return path.relative_to(top).as_posix() if path.is_relative_to(top) else path.name


def _key(path: Path, top: Path) -> tuple[str, ...]:
    """What a picture and its mask have in common: their folders but those named `masks`, and the file's stem."""
    relative = path.relative_to(top) if path.is_relative_to(top) else Path(path.name)
    folders = [part for part in relative.parts[:-1] if part.lower() != MASKS]
    return (*folders, relative.stem.lower().removesuffix("_mask"))
