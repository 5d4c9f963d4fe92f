"""Draw heatmaps of a fixed set of pictures, again and again during training."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from torch import Tensor

from camlab.attribution.results import PictureResult, Source
from camlab.drawing import render
from camlab.drawing.maps_file import write_maps
from camlab.drawing.scaling import scale
from camlab.drawing.sheets import Legend, contact_sheet
from camlab.drawing.tiles import Style, caption, draw_overlays, panel


class Probe:
    """Draws heatmaps of a fixed set of pictures for one epoch after another (docs/file_formats.md lists the files).

    Args:
        images: The pictures, uint8 RGB N×3×H×W; the network sees the whole of each.
        names: Names of the pictures in captions, N; empty where captions give the true class alone.
        class_names: Names of all classes.
        style: How to draw.
        folder: Output folder, created if it does not exist. It gets `pictures/` and one `epoch_NNNN/` for each epoch.
        masks: Masks of the objects in the pictures, bool N×H×W, which are written to `masks/` and outlined in the
            pictures' own tiles; None if there are none.

    Attributes:
        sources: The pictures as the network's results refer to them.
    """

    def __init__(
        self,
        images: Tensor,
        names: Sequence[str],
        class_names: Sequence[str],
        style: Style,
        folder: Path,
        masks: Tensor | None = None,
    ) -> None:
        height, width = images.shape[-2:]
        whole = (0, 0, width, height)
        self.sources = [Source(Path(f"{i:02d}.png"), name, i, (width, height), whole) for i, name in enumerate(names)]
        self.pictures = images.permute(0, 2, 3, 1).cpu().numpy()
        self.masks = None if masks is None else masks.cpu().numpy()
        self.class_names, self.style, self.folder = class_names, style, folder
        self._pictures_are_written = False

    def draw(
        self, results: Sequence[PictureResult], layers: Mapping[str, Sequence[str]], epochs_done: int
    ) -> tuple[list[np.ndarray], list[str]]:
        """Draw the predicted class and, where it differs, the true one; write the epoch's files, `maps.npz` last.

        Args:
            results: The network's results for the pictures.
            layers: Names of the target layers by method.
            epochs_done: Number of epochs done; 0 before training.

        Returns:
            A drawing and a caption for each picture.

        Raises:
            OSError: The files cannot be written.
        """
        scaled = scale(results, self.style.normalize)
        panels = []
        for i, (picture, result, heat) in enumerate(zip(self.pictures, results, scaled.heat, strict=True)):
            overlays = draw_overlays(picture, result, heat, self.class_names, self.style)
            mask = None if self.masks is None else self.masks[i]
            panels.append(panel(picture, result, overlays, self.class_names, mask))
        folder = self.folder / f"epoch_{epochs_done:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        self._write_pictures()
        title = f"Epoch {epochs_done}" if epochs_done else "Before training"
        images = [panel.image for panel in panels]
        sheet = contact_sheet(panels, Legend(title, layers, self.style, scaled.peaks))
        files = {"sheet.png": sheet, **{f"{i:02d}.jpg": drawn for i, drawn in enumerate(images)}}
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # encoding takes longer than drawing
            list(pool.map(render.write_image, [folder / name for name in files], files.values()))
        pictures = Path("..", "pictures")
        write_maps(folder / "maps.npz", results, self.class_names, layers, pictures, np.float16, epochs_done)
        return images, [caption(result, self.class_names) for result in results]

    def _write_pictures(self) -> None:
        """Write the pictures and masks themselves at the first call only: they are the same in every epoch."""
        if self._pictures_are_written:
            return
        for name, images in (("pictures", self.pictures), ("masks", self._white_masks())):
            if images is not None:
                (self.folder / name).mkdir(exist_ok=True)
                for source, image in zip(self.sources, images, strict=True):
                    render.write_image(self.folder / name / source.file, image)
        self._pictures_are_written = True

    def _white_masks(self) -> np.ndarray | None:
        """The masks as pictures, white on the object: uint8 N×H×W×3."""
        return None if self.masks is None else np.repeat(self.masks[..., None] * np.uint8(255), 3, axis=-1)
