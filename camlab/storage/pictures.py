"""Find picture files, and read them as upright 8-bit RGB."""

import glob
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageOps

from camlab.errors import UserError, cut, listed, plain
from camlab.storage.files import user_path
from camlab.storage.pixel_depth import deep_rgb, is_deep, is_deep_rgb, stated_bits, to_8_bits
from camlab.storage.tree import Tree

log = logging.getLogger(__name__)

ENDINGS = frozenset(
    [".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"]
)
MASKS = "masks"  # name of folders whose files are masks


@dataclass(frozen=True)
class Listing:
    """The files of a folder by kind, without hidden files.

    Attributes:
        pictures: Files with the ending of a picture, sorted by name.
        masks: Masks of pictures: `x_mask.*` beside a picture `x.*`, and whatever is in a folder named `masks`.
        others: Files with any other ending.
        again: Links to folders that are listed already, which are not followed.
    """

    pictures: list[Path]
    masks: list[Path]
    others: list[Path]
    again: list[Path] = field(default_factory=list)

    def left_out(self) -> str:
        """Return a phrase that counts the files that are not read as pictures; empty if there are none.

        Example:
            >>> Listing([], [Path("x_mask.png")], [Path("x.txt"), Path("y.txt"), Path("README")]).left_out()
            '3 files by their endings (.txt: 2, none: 1) and 1 mask'
        """
        counts = Counter(file.suffix.lower() or "none" for file in self.others)
        endings = ", ".join(f"{cut(ending)}: {count}" for ending, count in sorted(counts.items()))
        others = f"{_count(self.others, 'file')} by {'its ending' if len(self.others) == 1 else 'their endings'}"
        parts = [f"{others} ({endings})"] if self.others else []
        parts += [_count(self.masks, "mask")] if self.masks else []
        if self.again:
            links = _count(self.again, "link")
            parts.append(f"{links} to folders that are read already ({listed([link.name for link in self.again], 3)})")
        return " and ".join(parts)


def list_files(folder: Path, below: bool = False) -> Listing:
    """Sort the files of a folder into pictures, masks and others; hidden files and folders are ignored.

    Links to folders are followed, as `camlab.storage.tree` does.

    Args:
        folder: The folder; if it does not exist, the listing is empty.
        below: Whether to list the files in its subfolders, too.
    """
    again: list[str] = []
    names = sorted(_names(folder, below, again), key=lambda name: name.split(os.sep))  # paths take ten times as long
    images = [name for name in names if _ending(name) in ENDINGS]
    stems = {_stem(name) for name in images}
    masks = {name for name in images if _is_mask(name, stems)}
    return Listing(
        pictures=[folder / name for name in images if name not in masks],
        masks=[folder / name for name in images if name in masks],
        others=[folder / name for name in names if _ending(name) not in ENDINGS],
        again=[folder / os.path.relpath(link, folder) for link in again],
    )


def picture_files(folder: Path) -> list[Path]:
    """Return the pictures in a folder (not in its subfolders), sorted by name, and log which files are left out."""
    return _tell(folder, list_files(folder)).pictures


def find_pictures(place: str, tell: bool = True) -> list[Path]:
    """Find the pictures that a path, a folder (with its subfolders) or a glob pattern stands for, sorted by name.

    All files that a path or a pattern stands for are taken to be pictures. Of a folder, only files that are pictures by
    their endings are taken.

    Args:
        place: The path, folder or pattern.
        tell: Whether to log what is left out of a folder.

    Raises:
        UserError: There are no such files.
    """
    path = user_path(place, "images")
    if path.is_dir():
        listing = list_files(path, below=True)
        found = [picture for picture in (_tell(path, listing) if tell else listing).pictures if picture.is_file()]
    elif path.is_file():
        found = [path]
    else:
        folder = next(parent for parent in path.parents if parent.is_dir())  # brackets in its name are not a pattern
        pattern = f"{glob.escape(str(folder))}/{path.relative_to(folder)}"
        found = sorted(Path(name) for name in glob.glob(pattern, recursive=True) if Path(name).is_file())
    if not found:
        wrong = "no pictures in that folder" if path.is_dir() else "no such file, and no pattern that matches any"
        raise UserError(f"images={place}: {wrong}. Give a picture, a folder or a pattern such as 'photos/*.jpg'.")
    return found


def distinct_names(files: Sequence[Path]) -> list[str]:
    """Names of picture files, each with as many of its folders as it takes to tell it from others of the same name.

    Example:
        >>> distinct_names([Path("photos/A/0.jpg"), Path("photos/B/0.jpg"), Path("photos/B/1.jpg")])
        ['A/0.jpg', 'B/0.jpg', '1.jpg']
    """
    names = [""] * len(files)
    waiting, depth = list(range(len(files))), 1
    while waiting:
        short = {i: str(Path(*files[i].parts[-depth:])) for i in waiting}
        several = {name for name, count in Counter(short.values()).items() if count > 1}
        names = [short.get(i, name) for i, name in enumerate(names)]
        waiting = [i for i in waiting if short[i] in several and depth < len(files[i].parts)]
        depth += 1
    return names


def read_picture(path: Path) -> Image.Image:
    """Read a picture, upright and in 8-bit RGB.

    EXIF orientation is applied, transparency is drawn on white, and of an animation the first frame is read. Values of
    more than 8 bits are scaled as described in `camlab.storage.pixel_depth`.

    Raises:
        UserError: The file cannot be read, or would take gigabytes.
    """
    if not path.is_file():  # reading a pipe would wait for a writer, and a device may never end
        raise UserError(f"{path} is not a file.")
    return decode_picture(path, str(path))


def decode_picture(source: Path | BinaryIO, name: str) -> Image.Image:
    """Decode a picture, as `read_picture` does.

    Args:
        source: A file, or its content in memory.
        name: What the picture is called in messages.

    Raises:
        UserError: This is not a picture, or it is damaged or would take gigabytes.

    Example:
        >>> import io
        >>> content = io.BytesIO()
        >>> Image.new("L", (3, 2)).save(content, "png")
        >>> decode_picture(content, "grey.png").mode
        'RGB'
    """
    try:
        with Image.open(source) as file:
            if is_deep_rgb(file):
                return deep_rgb(source)
            ImageOps.exif_transpose(file, in_place=True)  # without a copy of what is upright already
            return _as_rgb(to_8_bits(file, stated_bits(source, file)) if is_deep(file) else file)
    except Exception as error:  # a damaged picture can raise any exception
        raise UserError(
            f"{name} is not a readable picture ({type(error).__name__}). Repair it, or remove it from the folder."
        ) from error


def count_pixels(path: Path) -> int:
    """Return the number of a picture's pixels, read from the header of its file; 0 if it cannot be read."""
    if not path.is_file():
        return 0
    try:
        with Image.open(path) as file:
            return file.width * file.height
    except Exception:  # `read_picture` will say what is wrong
        return 0


def _names(folder: Path, below: bool, again: list[str]) -> Iterator[str]:
    """Paths of the files in a folder, relative to it; hidden files and folders are left out.

    Args:
        folder: The folder.
        below: Whether the files in its subfolders count, too.
        again: List to which links are added that are not followed.
    """
    tree = Tree()
    for place, files in tree.walk(str(folder)):
        inner = os.path.relpath(place, folder)
        for name in files:
            if name[0] != ".":
                yield name if inner == os.curdir else os.path.join(inner, name)
        if not below:
            return
    again += tree.again


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _stem(name: str) -> tuple[str, str]:
    """The folder of a file, and its name in lower case without the ending."""
    folder, file = os.path.split(name)
    return folder, os.path.splitext(file)[0].lower()


def _is_mask(name: str, stems: set[tuple[str, str]]) -> bool:
    """Whether a picture file is a mask.

    Args:
        name: Path of the file, relative to the folder that is being listed.
        stems: Folder and stem of each picture file there.
    """
    folder, stem = _stem(name)
    if MASKS in folder.lower().split(os.sep):
        return True
    return stem.endswith("_mask") and (folder, stem.removesuffix("_mask")) in stems


def _tell(folder: Path, listing: Listing) -> Listing:
    if left_out := listing.left_out():
        log.info("%s: left out %s.", plain(str(folder)), left_out)
    return listing


def _count(files: list[Path], what: str) -> str:
    return f"{len(files)} {what}" + ("" if len(files) == 1 else "s")


def _as_rgb(picture: Image.Image) -> Image.Image:
    if "A" in picture.getbands() or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    if picture.mode != "RGB":
        return picture.convert("RGB")
    picture.load()  # `convert` would copy it, which takes a twentieth of the time of decoding and resizing
    return picture
