"""What a source of one's own pictures has given, in two lines, and warnings of what is odd."""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from camlab.data.first_pass import Stored
from camlab.data.picture_table import SPLITS, Picture
from camlab.errors import cut, listed

FEW = 10  # pictures; a class with fewer is warned of
MORE_IN_A_SPLIT = (
    "Add pictures, give larger shares (such as data.split=[.6,.2,.2]), or choose them yourself: in folders train/ and"
    " test/, or in a column split."
)


def describe(place: str, class_names: Sequence[str], stored: Stored) -> list[tuple[int, str]]:
    """Describe the pictures in two lines, followed by warnings.

    Args:
        place: Where they come from.
        class_names: Names of the classes.
        stored: What the first pass gave.

    Returns:
        Level of `logging`, and text, of each line.
    """
    pictures = stored.pictures
    classes = Counter(label for picture in pictures for label in picture.labels)
    splits = Counter(picture.split for picture in pictures)
    counted = [_counted(name, classes[name]) for name in class_names]
    if unlabelled := sum(not picture.labels for picture in pictures):
        counted.append(f"{unlabelled:,} without a label")
    parts = ", ".join(f"{split} {splits[split]:,}" for split in SPLITS if splits[split])
    lines = [
        (
            logging.INFO,
            f"{place}: {len(pictures):,} pictures in {len(class_names)} classes ({listed(counted)}); {parts}.",
        ),
        (logging.INFO, f"{_sizes(stored)}{_balance(classes)}{_masks(stored)}."),
    ]
    if few := [_counted(name, classes[name]) for name in class_names if classes[name] < FEW]:
        lines.append((logging.WARNING, f"Classes with fewer than {FEW} pictures ({listed(few)})."))
    if lacking := _lacking(class_names, pictures):
        text = f"No picture {', and none '.join(lacking)}: the figures there say nothing about it. {MORE_IN_A_SPLIT}"
        lines.append((logging.WARNING, text))
    for where, several in (("two splits", _splits_of), ("two classes", _labels_of)):
        if twice := _in_several(pictures, stored.keys, several):
            names = listed([cut(picture.name, 80) for picture in twice[0]], 3)
            count = "a picture is" if len(twice) == 1 else f"{len(twice):,} pictures are"
            text = f"The same content in {where}: {count} there more than once, such as {names}."
            lines.append((logging.WARNING, text))
    return lines


def _quoted(name: str) -> str:
    """A name, in quotation marks if spaces around it could not be seen."""
    return f"'{cut(name)}'" if name != name.strip() else cut(name)


def _counted(name: str, count: int) -> str:
    """A class and its number of pictures; the name may be a number, too.

    Example:
        >>> _counted("3", 12)
        '3: 12'
    """
    return f"{_quoted(name)}: {count:,}"


def _sizes(stored: Stored) -> str:
    width, height = stored.sizes.T
    least, most = (f"{width[i]}×{height[i]}" for i in ((width * height).argmin(), (width * height).argmax()))
    return f"All have {least} pixels" if (stored.sizes == stored.sizes[0]).all() else f"From {least} to {most} pixels"


def _balance(classes: Counter[str]) -> str:
    (_, most), (_, least) = classes.most_common()[0], classes.most_common()[-1]
    if most == least:
        return "; the classes are of equal size"
    return f"; the largest class has {most / least:.1f} times the pictures of the smallest"


def _masks(stored: Stored) -> str:
    if stored.masks is None:
        return "; no masks"
    return f"; masks for {(stored.masks.rows >= 0).sum():,}"


def _lacking(class_names: Sequence[str], pictures: Sequence[Picture]) -> list[str]:
    """Which classes a split lacks, such as `in test of cat, dog`, for each split that has pictures and lacks some."""
    found = []
    for split in SPLITS:
        own = [picture.labels for picture in pictures if picture.split == split]
        there = {label for labels in own for label in labels}
        lacking = [_quoted(name) for name in class_names if name not in there]
        found += [f"in {split} of {listed(lacking)}"] if own and lacking else []
    return found


def _splits_of(picture: Picture) -> object:
    return picture.split


def _labels_of(picture: Picture) -> object:
    return frozenset(picture.labels)


def _in_several(
    pictures: Sequence[Picture], keys: Sequence[bytes], place: Callable[[Picture], object]
) -> list[list[Picture]]:
    """Groups of pictures with the same content, of which not all are in the same place: a split, or classes."""
    by_key: dict[bytes, list[Picture]] = defaultdict(list)
    for picture, key in zip(pictures, keys, strict=True):
        by_key[key].append(picture)
    return [own for own in by_key.values() if len(set(map(place, own))) > 1]
