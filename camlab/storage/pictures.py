"""Picture files of any kind as upright 8-bit RGB."""

import glob
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from camlab.errors import UserError

ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})


def picture_files(folder: Path) -> list[Path]:
    """The pictures right inside a folder, by name."""
    return sorted(p for p in folder.glob("*") if p.suffix.lower() in ENDINGS and not p.name.startswith("."))


def find_pictures(place: str) -> list[Path]:
    """The pictures that a path, a folder (with all below it) or a glob pattern stands for, by name.

    Raises:
        UserError: there are none.
    """
    path = Path(place).expanduser()
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in ENDINGS and not p.name.startswith("."))
        found = [p for p in inside if p.is_file()]
    elif path.is_file():
        found = [path]
    else:
        folder = next(parent for parent in path.parents if parent.is_dir())  # its brackets are no pattern
        pattern = f"{glob.escape(str(folder))}/{path.relative_to(folder)}"
        found = sorted(Path(name) for name in glob.glob(pattern, recursive=True) if Path(name).is_file())
    if not found:
        wrong = "no pictures in that folder" if path.is_dir() else "no such file, and no pattern that matches any"
        raise UserError(f"images={place}: {wrong}. Give a picture, a folder or a pattern such as 'photos/*.jpg'.")
    return found


def read_picture(path: Path) -> Image.Image:
    """A picture upright and in 8-bit RGB: EXIF orientation applied, transparency on white, 16 bits reduced.

    Raises:
        UserError: it cannot be read, or would take gigabytes.
    """
    if not path.is_file():  # a pipe would be waited for, a device may never end
        raise UserError(f"{path} is no file.")
    try:
        with Image.open(path) as file:
            return _as_rgb(ImageOps.exif_transpose(file))
    except Exception as error:  # a damaged picture raises nearly anything
        raise UserError(f"{path} is no readable picture ({type(error).__name__}). Mend or remove it.") from error


def count_pixels(path: Path) -> int:
    """How many a picture has, by its file's first bytes; 0 if it cannot be read."""
    if not path.is_file():
        return 0
    try:
        with Image.open(path) as file:
            return file.width * file.height
    except Exception:  # `read_picture` will say what is wrong
        return 0


def _as_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode in ("I", "F") or picture.mode.startswith("I;"):
        values = np.asarray(picture, np.float32)
        depth = 1.0 if values.max(initial=0) <= 1 else 255.0 if values.max() <= 255 else 65535.0
        return Image.fromarray((values.clip(0, depth) * (255 / depth) + 0.5).astype(np.uint8)).convert("RGB")
    if "A" in picture.getbands() or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return picture.convert("RGB")
