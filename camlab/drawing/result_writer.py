"""Write the files of `explain` about a set of pictures (docs/file_formats.md)."""

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from camlab.attribution.results import PictureResult, of_equal_ranks
from camlab.drawing import render
from camlab.drawing.maps_file import write_maps
from camlab.drawing.sheets import Legend, contact_sheet
from camlab.drawing.tiles import Panel, Style, draw_overlays, panel
from camlab.storage.files import write_atomically

PANELS = 40  # pictures on the contact sheet
_STEM_BYTES, _CLASS_BYTES = 60, 40  # limits in overlays' names; a name can have 255 bytes (143 on encrypted disks)


class ResultWriter:
    """Draws pictures one by one, then writes the files about all of them; `draw` may run in many threads.

    Args:
        folder: Output folder; it must exist and have a subfolder `overlays`.
        class_names: Names of all classes.
        style: How to draw.
    """

    def __init__(self, folder: Path, class_names: Sequence[str], style: Style) -> None:
        self.folder, self.class_names, self.style = folder, class_names, style
        self._boxes: dict[int, list[dict[str, Any]]] = {}
        self._panels: dict[int, Panel] = {}

    def draw(self, result: PictureResult, heat: dict[str, np.ndarray], picture: np.ndarray, on_sheet: bool) -> None:
        """Write a picture's overlays, and keep its boxes and, if it is on the sheet, its panel.

        Args:
            result: The network's result for the picture.
            heat: Scaled maps by method, R×h×w in [0, 1].
            picture: uint8 RGB, upright and whole.
            on_sheet: Whether the picture has a panel on the contact sheet.
        """
        source = result.source
        overlays = draw_overlays(picture, result, heat, self.class_names, self.style)
        (self.folder / "overlays").mkdir(exist_ok=True)  # only now: a mistake that ends the command leaves no folder
        for overlay in overlays:
            name = overlay_name(source.number, source.file.stem, overlay.method, overlay.rank, overlay.class_name)
            render.write_image(self.folder / "overlays" / name, overlay.image)
        self._boxes[source.number] = [
            {"method": each.method, "rank": each.rank, "class": each.class_name, "box": each.box}
            for each in overlays
            if each.box is not None
        ]
        if on_sheet:
            self._panels[source.number] = panel(picture, result, overlays, self.class_names)

    def finish(self, results: Sequence[PictureResult], legend: Legend, about: Mapping[str, Any]) -> Path | None:
        """Write the files about all pictures.

        Args:
            results: Results of all pictures that were explained.
            legend: Legend of the contact sheet.
            about: Content of `explain.json`.

        Returns:
            Path of the contact sheet; None if none of its pictures was drawn.
        """
        self._write_text("predictions.csv", self._predictions(results, legend.layers))
        if self.style.boxes:
            drawn = [result.source for result in results if result.source.number in self._boxes]
            boxes = {str(source.file): self._boxes[source.number] for source in drawn}
            self._write_text("boxes.json", json.dumps(boxes, indent=1, ensure_ascii=False) + "\n")
        write_maps(
            self.folder / "maps.npz",
            of_equal_ranks(results),
            self.class_names,
            legend.layers,
            Path.cwd(),
            counterfactual=legend.counterfactual,
        )
        self._write_text("explain.json", json.dumps(about, indent=2, ensure_ascii=False, default=str) + "\n")
        if not self._panels:
            return None
        sheet = self.folder / "sheet.png"
        render.write_image(sheet, contact_sheet([drawn for _, drawn in sorted(self._panels.items())], legend))
        return sheet

    def _predictions(self, results: Sequence[PictureResult], layers: Mapping[str, Sequence[str]]) -> str:
        """A row for each picture and class; with the methods of its heatmaps, their layers and its true class."""
        shown = ["; ".join(layers), "; ".join(" + ".join(names) for names in layers.values())]
        table = io.StringIO(newline="")
        writer = csv.writer(table)
        writer.writerow(["file", "rank", "class_idx", "class", "probability", "method", "layer", "true_class"])
        for result in results:
            true = result.true_classes or (() if result.label is None else (result.label,))
            true_class = "; ".join(self.class_names[label] for label in true)
            for rank, class_idx in enumerate(dict.fromkeys(result.class_idx)):
                probability = f"{float(result.probabilities[class_idx]):.6f}"
                class_name = self.class_names[class_idx]
                writer.writerow([result.source.file, rank, class_idx, class_name, probability, *shown, true_class])
        return table.getvalue()

    def _write_text(self, name: str, text: str) -> None:
        # File names may contain bytes that are not valid UTF-8; Python keeps them as surrogates.
        write_atomically(self.folder / name, text.encode("utf-8", "surrogateescape"))


def overlay_name(number: int, stem: str, method: str, rank: int, class_name: str) -> str:
    """Make the file name of an overlay, short enough for every file system and unique in its folder.

    Example:
        >>> overlay_name(7, "my photo", "grad_cam", 0, "great white shark")
        '00007_my photo_grad_cam_0_great-white-shark.jpg'
    """
    plain = "".join(letter if letter.isalnum() else "-" for letter in class_name)
    return f"{number:05d}_{_cut(stem, _STEM_BYTES)}_{method}_{rank}_{_cut(plain, _CLASS_BYTES)}.jpg"


def _cut(text: str, limit: int) -> str:
    """The longest beginning of a text that takes at most `limit` bytes in a file name."""
    while len(os.fsencode(text)) > limit:
        text = text[:-1]
    return text
