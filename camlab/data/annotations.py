"""Annotations of objects in the formats of COCO (JSON) and Pascal VOC (XML)."""

import json
import xml.etree.ElementTree as xml
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from camlab.data.picture_table import Picture
from camlab.data.truth import Box, Outlines
from camlab.errors import UserError, cut, first_line
from camlab.storage.documents import read_json
from camlab.storage.files import read_text, user_path


@dataclass(frozen=True)
class Annotated:
    """An object in a picture.

    Attributes:
        category: Name of its class.
        box: Its box in pixels; None if it has an outline.
        outline: Its outline, as COCO gives it, as text in JSON; None if it has a box only.
        size: Width and height that the annotation states of the picture; None if it states none.
    """

    category: str
    box: Box | None
    outline: str | None = None
    size: tuple[int, int] | None = None


def with_annotations(pictures: Sequence[Picture], place: str) -> list[Picture]:
    """Give pictures without a mask the objects of an annotation.

    A picture is found by its path in the data set, or by the name of its file if only one picture has this name. The
    objects of the picture's classes count; if the annotation has none of the data's classes, all objects do.

    Args:
        pictures: The pictures.
        place: A JSON file in COCO's format, or a folder of XML files in that of Pascal VOC.

    Raises:
        UserError: The annotation cannot be read, or belongs to none of the pictures.
    """
    path = user_path(place, "data.annotations")
    objects = _voc(path) if path.is_dir() else _coco(path)
    labels = {label for picture in pictures for label in picture.labels}
    by_class = any(one.category in labels for several in objects.values() for one in several)
    found, matched = [], 0
    names = _by_name(pictures, path.is_dir())
    for picture in pictures:
        own = next((objects[name] for name in names[picture.name] if name in objects), None)
        matched += own is not None
        kept = [one for one in own or () if not by_class or one.category in picture.labels]
        if picture.truth is None and kept:
            boxes = tuple(one.box for one in kept if one.box is not None)
            outlines = tuple(one.outline for one in kept if one.outline is not None)
            picture = replace(picture, truth=Outlines(boxes, outlines, kept[0].size))
        found.append(picture)
    if not matched:
        raise UserError(
            f"data.annotations={place}: none of its files is a picture of the data, such as {_first(objects)}."
        )
    return found


def _by_name(pictures: Sequence[Picture], without_ending: bool) -> dict[str, list[str]]:
    """Names by which an annotation may call each picture: its path, then its file's name if no other has it."""
    counts: dict[str, int] = defaultdict(int)
    names: dict[str, list[str]] = {}
    for picture in pictures:
        path = PurePosixPath(picture.name)
        both = [str(path.with_suffix("")), path.stem] if without_ending else [str(path), path.name]
        names[picture.name] = both
        counts[both[1]] += 1
    return {name: [both[0], *([both[1]] if counts[both[1]] == 1 else [])] for name, both in names.items()}


def _coco(path: Path) -> dict[str, list[Annotated]]:
    try:
        content = read_json(path)
        categories = {one["id"]: str(one["name"]) for one in content["categories"]}
        files = {
            one["id"]: (str(one["file_name"]), _size(one.get("width"), one.get("height"))) for one in content["images"]
        }
        found: dict[str, list[Annotated]] = {name: [] for name, _ in files.values()}
        for one in content["annotations"]:
            name, size = files[one["image_id"]]
            found[name].append(replace(_coco_object(one, categories[one["category_id"]]), size=size))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise UserError(
            f"data.annotations={path}: not a file in COCO's format ({type(error).__name__}: {first_line(error)}).",
            "Give a JSON file with images, annotations and categories, or a folder of Pascal VOC's XML files.",
        ) from error
    return found


def _coco_object(one: Mapping[str, Any], category: str) -> Annotated:
    if one.get("segmentation"):
        return Annotated(category, None, json.dumps(one["segmentation"]))
    left, top, width, height = map(float, one["bbox"])
    return Annotated(category, (left, top, left + width, top + height))


def _voc(folder: Path) -> dict[str, list[Annotated]]:
    """Objects of each XML file, by its path without the ending; the file name that it states does not count."""
    found: dict[str, list[Annotated]] = {}
    for path in sorted(folder.rglob("*.xml")):
        try:
            root = xml.fromstring(read_text(path))
            size = _size(root.findtext("size/width"), root.findtext("size/height"))
            objects = [replace(_voc_object(one), size=size) for one in root.iter("object")]
        except (OSError, ValueError, TypeError, xml.ParseError) as error:
            raise UserError(f"{path}: not an annotation in Pascal VOC's format ({first_line(error)}).") from error
        found[path.relative_to(folder).with_suffix("").as_posix()] = objects
    if not found:
        raise UserError(f"data.annotations={folder}: no XML files there.")
    return found


def _voc_object(one: xml.Element) -> Annotated:
    """VOC counts pixels from 1, and its right and bottom are inclusive."""
    left, top, right, bottom = (float(one.findtext(f"bndbox/{name}", "")) for name in ("xmin", "ymin", "xmax", "ymax"))
    return Annotated(one.findtext("name", ""), (left - 1, top - 1, right, bottom))


def _size(width: Any, height: Any) -> tuple[int, int] | None:
    """Width and height as an annotation states them; some programs state 0 for what they do not know."""
    return (int(width), int(height)) if width and height and int(width) > 0 and int(height) > 0 else None


def _first(objects: Mapping[str, Any]) -> str:
    return cut(next(iter(objects), "none"), 80)
