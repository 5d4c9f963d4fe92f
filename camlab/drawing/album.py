"""Pictures in, heatmaps out: any number of files through one network, at constant memory.

Decoding and writing run in threads beside the network. One broken file is named and left out; the rest is done.
"""

import csv
import itertools
import json
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from camlab import maps
from camlab.attribution.explainer import Explainer
from camlab.drawing import render
from camlab.errors import UserError
from camlab.maps import Normalization
from camlab.models.trained_network import TrainedNetwork
from camlab.progress import progress
from camlab.storage.pictures import count_pixels, read_picture

log = logging.getLogger(__name__)

_BOX_SHARE = {"cam": 0.20}  # Zhou et al. 2016; Selvaraju et al. 2017 take 15 % for Grad-CAM
_SHEET_ROWS, _SHEET_HEIGHT = 40, 224
_LONGEST_SIDE = 65_500  # pixels, of a JPEG
_BATCH_PIXELS = 64_000_000  # decoded at a time; there are two more batches, one drawn and one ahead: 0.6 GB
_STEM_LENGTH = 60  # of a picture's name in those of its overlays, which may have 255 bytes
_TITLES = {
    "cam": "CAM", "grad_cam": "Grad-CAM", "grad_cam_plus_plus": "Grad-CAM++", "xgrad_cam": "XGrad-CAM",
    "hires_cam": "HiResCAM", "layer_cam": "LayerCAM", "score_cam": "Score-CAM",
}  # fmt: skip


@dataclass(frozen=True)
class Style:
    """What is drawn, and how.

    Attributes:
        methods: of `camlab.attribution.methods.METHODS`; None: CAM where the network has it, and Grad-CAM.
        layers: of the network; None: the default.
        target: a class index for all pictures, or None for the `top_k` predicted ones.
        top_k: classes per picture.
        normalize: `per_image`, `shared` over all pictures of a method, or `raw` (drawn as `shared`).
        counterfactual: the evidence against the class, for gradient methods.
        boxes: draw the box around the hottest region.
        alpha: the heatmap's share of an overlay.
    """

    methods: Sequence[str] | None = None
    layers: Sequence[str] | None = None
    target: int | None = None
    top_k: int = 1
    normalize: Normalization = "per_image"
    counterfactual: bool = False
    boxes: bool = True
    alpha: float = 0.5


@dataclass
class Album:
    """What was made.

    Attributes:
        folder: of the files.
        done: pictures explained.
        broken: what was wrong with the others, a line each.
        sheet: the contact sheet.
    """

    folder: Path
    done: int = 0
    broken: list[str] = field(default_factory=list)
    sheet: Path | None = None


@dataclass(frozen=True)
class _Seen:
    """One picture's results: signed maps h×w by method and rank, one per layer."""

    path: Path
    number: int
    class_idx: list[int]
    probabilities: list[float]
    signed: dict[str, list[list[Tensor]]]


def make_album(
    trained: TrainedNetwork,
    files: Sequence[Path],
    folder: Path,
    style: Style = Style(),
    batch_size: int = 64,
    device: torch.device | None = None,
) -> Album:
    """Explain pictures and write everything about them.

    Overlays at the pictures' own size (`overlays/`), `maps.npz` (signed, on the layer's grid),
    `predictions.csv`, `boxes.json` and a contact sheet of the first pictures, `sheet.png`.

    Args:
        trained: the network.
        files: of pictures, any size and kind.
        folder: made if need be.
        style: what to draw.
        batch_size: pictures that pass the network together, at most: fewer of large ones.
        device: of the network; None: a GPU if there is one.

    Raises:
        UserError: as `camlab.attribution.explainer.heatmaps`; none of the pictures can be read.
        OSError: the folder cannot be written.
    """
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    album, seen = Album(folder), []
    (folder / "overlays").mkdir(parents=True, exist_ok=True)
    look = _Looking(trained, style, device)
    artist = _Artist(trained, style, folder)
    drawing: list[Future[None]] = []
    with _threads() as pool:
        for batch in progress(_batches(files, batch_size, look.side, pool, album), len(files), "Pictures"):
            results = look.at(batch)
            for finished in drawing:  # of the batch before, beside the network
                finished.result()
            seen += results
            artist.on_sheet = {one.number for one in seen[:_SHEET_ROWS]}
            if style.normalize == "per_image":
                drawing = [pool.submit(artist.draw, one, p.whole) for one, p in zip(results, batch, strict=True)]
        for finished in drawing:
            finished.result()
        if not seen:
            raise UserError(f"None of the {len(files)} pictures could be read. {album.broken[0]}")
        if style.normalize != "per_image":  # one scale for all, known only now
            artist.peaks = {method: _peak(seen, method) for method in seen[0].signed}
            list(pool.map(lambda one: artist.draw(one, read_picture(one.path)), seen))
    album.done = len(seen)
    album.sheet = artist.finish(seen)
    return album


@dataclass(frozen=True)
class _Decoded:
    path: Path
    number: int
    whole: Image.Image
    square: np.ndarray  # uint8 S×S×3, what the network sees


class _Looking:
    """The network at work on batches."""

    def __init__(self, trained: TrainedNetwork, style: Style, device: torch.device) -> None:
        self.trained, self.style, self.device = trained, style, device
        self.side = trained.preprocess.image_size
        self.explainer = Explainer(trained.network.to(device), style.layers)
        self.methods = style.methods or self._usual_methods()

    def at(self, batch: Sequence[_Decoded]) -> list[_Seen]:
        inputs = self._inputs(np.stack([picture.square for picture in batch]))
        target = self.style.target
        classes = None if target is None else torch.full((len(batch), 1), target, device=self.device)
        look = self.explainer.explain(inputs, self.methods, classes, self.style.top_k, self.style.counterfactual)
        probabilities = look.logits.float().softmax(dim=1).gather(1, look.class_idx).cpu()
        on_host = {method: [part.float().cpu() for part in parts] for method, parts in look.maps.items()}
        return [
            _Seen(
                picture.path,
                picture.number,
                look.class_idx[i].tolist(),
                probabilities[i].tolist(),
                {
                    m: [[part[i, r] for part in parts] for r in range(look.class_idx.shape[1])]
                    for m, parts in on_host.items()
                },
            )
            for i, picture in enumerate(batch)
        ]

    def _inputs(self, squares: np.ndarray) -> Tensor:
        return self.trained.preprocess(torch.from_numpy(squares).to(self.device).permute(0, 3, 1, 2))

    def _usual_methods(self) -> tuple[str, ...]:
        """CAM where the network has it; a picture of nothing tells."""
        try:
            self.explainer.explain(self._inputs(np.full((1, self.side, self.side, 3), 127, np.uint8)), ("cam",))
        except UserError:
            return ("grad_cam",)
        return ("cam", "grad_cam")


class _Artist:
    """Draws and writes what was seen; `draw` may run in many threads."""

    def __init__(self, trained: TrainedNetwork, style: Style, folder: Path) -> None:
        self.class_names, self.style, self.folder = trained.class_names, style, folder
        self.peaks: dict[str, float] = {}
        self.on_sheet: set[int] = set()
        self.rows: dict[int, np.ndarray] = {}
        self.boxes: dict[int, list[dict[str, Any]]] = {}

    def draw(self, seen: _Seen, whole: Image.Image) -> None:
        """Overlays, boxes and, for the first pictures, a row of the contact sheet."""
        picture = np.asarray(whole)
        tiles, found = [("", picture)], []
        for method, ranks in seen.signed.items():
            for rank, (signed, class_idx) in enumerate(zip(ranks, seen.class_idx, strict=True)):
                name = self.class_names[class_idx]
                heat = self._heat(signed, method, (picture.shape[0], picture.shape[1]))
                drawn = render.overlay(picture, heat, self.style.alpha)
                box = render.largest_box(heat, _BOX_SHARE.get(method, 0.15)) if self.style.boxes else None
                if box is not None:
                    drawn = render.draw_box(drawn, box)
                    found.append({"method": method, "rank": rank, "class": name, "box": box})
                stem = f"{seen.number:05d}_{seen.path.stem[:_STEM_LENGTH]}_{method}_{rank}_{_plain(name)}"
                render.write_image(self.folder / "overlays" / f"{stem}.jpg", drawn)
                evidence = "" if any(float(part.max()) > 0 for part in signed) else ": none"
                tiles.append((f"{_TITLES.get(method, method)} {name}{evidence}", drawn))
        self.boxes[seen.number] = found
        if seen.number in self.on_sheet:
            small = [(title, render.thumbnail(tile, _SHEET_HEIGHT)) for title, tile in tiles]
            self.rows[seen.number] = render.panel([("image", small[0][1]), *small[1:]], self._caption(seen), side=1)

    def finish(self, seen: Sequence[_Seen]) -> Path:
        """Write what is about all pictures; the contact sheet's path."""
        # A file's name may be any bytes: surrogateescape.
        with open(self.folder / "predictions.csv", "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file)
            writer.writerow(["file", "rank", "class_idx", "class", "probability"])
            for one in seen:
                ranked = enumerate(zip(one.class_idx, one.probabilities, strict=True))
                writer.writerows([one.path, r, c, self.class_names[c], f"{p:.6f}"] for r, (c, p) in ranked)
        if self.style.boxes:
            boxes = {str(one.path): self.boxes[one.number] for one in seen}
            text = json.dumps(boxes, indent=1, ensure_ascii=False)
            (self.folder / "boxes.json").write_text(text + "\n", encoding="utf-8", errors="surrogateescape")
        _write_maps(self.folder / "maps.npz", seen)
        sheet = self.folder / "sheet.png"
        rows = [row for _, row in sorted(self.rows.items())]
        render.write_image(sheet, render.contact_sheet(rows, columns=1 if rows[0].shape[1] > 700 else 2))
        return sheet

    def _heat(self, signed: Sequence[Tensor], method: str, size: tuple[int, int]) -> np.ndarray:
        """What `explainer.fuse` makes, but in this thread alone: torch would start a team of threads in each."""
        peak = self.peaks.get(method)
        layers = [render.resize(maps.normalize(part, "raw" if peak else "per_image").numpy(), size) for part in signed]
        if len(layers) == 1 and not peak:
            return layers[0]
        heat = np.mean(layers, axis=0)
        return heat / max(peak or heat.max(), 1e-30)

    def _caption(self, seen: _Seen) -> str:
        best = f"{self.class_names[seen.class_idx[0]]} {100 * seen.probabilities[0]:.0f} %"
        return f"{seen.path.name}: {best}"


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """One for each core, and OpenCV without any of its own."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            yield pool
    finally:
        cv2.setNumThreads(before)


def _batches(
    files: Sequence[Path], batch_size: int, side: int, pool: ThreadPoolExecutor, album: Album
) -> Iterator[list[_Decoded]]:
    """Decoded pictures, the next batch already under way; what cannot be read is noted and left out."""

    def decode(number: int, path: Path) -> _Decoded:
        whole = read_picture(path)
        if max(whole.size) > _LONGEST_SIDE:
            raise UserError(
                f"{path} is {whole.width}×{whole.height}; overlays have {_LONGEST_SIDE:,} pixels a side at most."
            )
        square = np.asarray(whole.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=3.0))
        return _Decoded(path, number, whole, square)

    ahead: list[list[Future[_Decoded]]] = []
    for group in itertools.chain(_groups(files, batch_size), [[]]):
        ahead.append([pool.submit(decode, number, path) for number, path in group])
        if len(ahead) < 2:
            continue
        batch = []
        for future in ahead.pop(0):
            try:
                batch.append(future.result())
            except UserError as error:
                album.broken.append(str(error))
                log.warning("Skipped: %s", error)
        if batch:
            yield batch


def _groups(files: Sequence[Path], batch_size: int) -> Iterator[list[tuple[int, Path]]]:
    """Numbered files: `batch_size` at a time, or as many as `_BATCH_PIXELS` hold."""
    group: list[tuple[int, Path]] = []
    pixels = 0
    for number, path in enumerate(files):
        own = count_pixels(path)
        if group and (len(group) == batch_size or pixels + own > _BATCH_PIXELS):
            yield group
            group, pixels = [], 0
        group.append((number, path))
        pixels += own
    yield group


def _peak(seen: Sequence[_Seen], method: str) -> float:
    """The one maximum that all maps of a method are divided by."""
    return max(float(maps.normalize(part, "raw").max()) for one in seen for rank in one.signed[method] for part in rank)


def _write_maps(path: Path, seen: Sequence[_Seen]) -> None:
    """Signed maps as float32: `METHOD` is N×R×h×w (`METHOD_i` for the i-th of several layers); files and classes."""
    arrays: dict[str, np.ndarray] = {
        "files": np.array([str(one.path) for one in seen]),
        "class_idx": np.array([one.class_idx for one in seen]),
    }
    for method, ranks in seen[0].signed.items():
        for i in range(len(ranks[0])):
            name = method if len(ranks[0]) == 1 else f"{method}_{i}"
            stacked = torch.stack([torch.stack([rank[i] for rank in one.signed[method]]) for one in seen])
            arrays[name] = stacked.numpy()
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def _plain(name: str) -> str:
    """A class name as part of a file name."""
    return "".join(letter if letter.isalnum() else "-" for letter in name)
