"""The table of pictures that every source of one's own pictures is turned into: which pictures, labels and splits."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from camlab.data.sources import Source
from camlab.data.truth import Truth
from camlab.errors import UserError, cut, listed

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
SPLIT_WORDS: dict[str, Split] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Picture:
    """A row of the table.

    Attributes:
        name: The picture's place in its data set, such as `cat/1.jpg`; it decides the split if the source does not.
        labels: Names of its classes: one, or any number in a multi-label set.
        source: Where the bytes come from.
        split: The split that the source states; None if it states none.
        truth: Where the object is; None if that is unknown.
    """

    name: str
    labels: tuple[str, ...]
    source: Source
    split: Split | None = None
    truth: Truth | None = None


def with_splits(pictures: Sequence[Picture], shares: Sequence[float], seed: int) -> list[Picture]:
    """Give each picture a split.

    If the source states splits, those that it lacks are taken from its training pictures. A hash of the seed and the
    picture's name decides, so that pictures that are added later move no other picture to another split.

    Args:
        pictures: The pictures; either all have a split, or none has one.
        shares: Shares of train, val and test.
        seed: Seed of the split.

    Raises:
        UserError: Some pictures have a split and others have none, or none is for training.

    Example:
        >>> from pathlib import Path
        >>> from camlab.data.sources import PictureFile
        >>> pictures = [Picture(f"{i}.jpg", ("cat",), PictureFile(Path(f"{i}.jpg"))) for i in range(1000)]
        >>> sorted(Counter(picture.split for picture in with_splits(pictures, (0.8, 0.1, 0.1), 0)).items())
        [('test', 97), ('train', 801), ('val', 102)]
    """
    stated = {picture.split for picture in pictures}
    if None in stated and len(stated) > 1:
        name = next(picture.name for picture in pictures if picture.split is None)
        raise UserError(
            f"{cut(name, 80)} has no split, but other pictures have one. Give all of them a split, or none."
        )
    if stated and None not in stated and "train" not in stated:
        raise UserError(f"There are pictures for {listed(sorted(map(str, stated)))}, but none to train on.")
    share = dict(zip(SPLITS, shares, strict=True))
    free = {split: 0.0 if split in stated and split != "train" else share[split] for split in SPLITS}
    total = sum(free.values())
    return [
        picture
        if picture.split not in (None, "train")
        else replace(picture, split=_drawn(picture.name, free, total, seed))
        for picture in pictures
    ]


def class_names_of(pictures: Sequence[Picture], known: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of the classes in order: as the source states them, else sorted, whole numbers by their value.

    Args:
        pictures: The pictures with their splits.
        known: Names of the classes in the order that the source states.

    Raises:
        UserError: There are fewer than two classes, or a class has no training picture.

    Example:
        >>> from pathlib import Path
        >>> from camlab.data.sources import PictureFile
        >>> class_names_of([Picture(name, (name,), PictureFile(Path(name)), "train") for name in ("10", "9")])
        ('9', '10')
    """
    counts = Counter((label, picture.split) for picture in pictures for label in picture.labels)
    labels = {label for label, _ in counts}
    if len(labels) < 2:
        found = f"is only one class in the data, {cut(min(labels))}" if labels else "are no pictures in the data"
        raise UserError(f"There {found}, but at least two classes are needed.")
    if lacking := sorted(label for label in labels if not counts[label, "train"]):
        where = next(split for split in SPLITS if counts[lacking[0], split])
        all_of_them = sum(counts[lacking[0], split] for split in SPLITS)
        raise UserError(
            f"Class {cut(lacking[0])} has no training pictures: its {all_of_them} picture"
            f"{' is' if all_of_them == 1 else 's are'} in {where}. Add pictures, or leave the class out."
        )
    if known:
        return tuple(name for name in known if name in labels)
    numbers = all(label.isdecimal() for label in labels)
    return tuple(sorted(labels, key=lambda label: (int(label) if numbers else 0, label)))  # 01 before 1


def _drawn(name: str, shares: dict[Split, float], total: float, seed: int) -> Split:
    digest = hashlib.blake2b(f"{seed}/{name}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
    left = int.from_bytes(digest, "little") / 2**64 * total
    for split in ("test", "val"):
        if left < shares[split]:
            return split
        left -= shares[split]
    return "train"
