"""Explain any number of picture files with one network, and write the results.

Decoding and drawing run in threads while the network runs, and only a few batches of pictures are in memory at a time.
Unreadable files are reported and skipped.
"""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from camlab import __version__
from camlab.attribution.batch_explainer import BatchExplainer, Request
from camlab.attribution.decoding import DecodedPicture, decode_batches
from camlab.attribution.results import PictureResult
from camlab.drawing.result_writer import PANELS, ResultWriter
from camlab.drawing.scaling import scale
from camlab.drawing.sheets import Legend
from camlab.drawing.tiles import Style
from camlab.errors import UserError
from camlab.models.devices import choose_device
from camlab.models.preprocess import Preprocess
from camlab.models.trained_network import TrainedNetwork
from camlab.runs.provenance import provenance, utc_now
from camlab.storage.pictures import read_picture
from camlab.storage.progress import progress

log = logging.getLogger(__name__)

Labels = Sequence[int] | Sequence[tuple[int, ...]]


@dataclass
class ExplainResult:
    """Summary of what `explain_pictures` has written.

    Attributes:
        folder: Folder of the files.
        done: Number of pictures that were explained.
        broken: A message for each picture that could not be read.
        sheet: Path of the contact sheet; None if none of its pictures could be drawn.
    """

    folder: Path
    done: int = 0
    broken: list[str] = field(default_factory=list)
    sheet: Path | None = None


def explain_pictures(
    trained: TrainedNetwork,
    files: Sequence[Path],
    folder: Path,
    request: Request | None = None,
    style: Style | None = None,
    batch_size: int = 64,
    device: torch.device | None = None,
    about: Mapping[str, Any] | None = None,
    labels: Labels | None = None,
) -> ExplainResult:
    """Explain pictures and write the results.

    The files are overlays at the pictures' own size (`overlays/`), `maps.npz`, `predictions.csv`, `boxes.json`,
    `explain.json` and a contact sheet of the first pictures, `sheet.png`.

    Args:
        trained: The network.
        files: Paths of pictures of any size and format.
        folder: Output folder; it is created if it does not exist.
        request: The maps to compute; by default those of `Request()`.
        style: How to draw the maps; by default as `Style()` says: each on its own scale, with boxes.
        batch_size: Largest number of pictures that pass through the network together; a batch of large ones has fewer.
        device: Device of the network; by default the best one that is available.
        about: More entries for `explain.json`.
        labels: True class of each picture, or a tuple of them if it may have any number; None if they are not known.

    Raises:
        UserError: As for `camlab.attribution.explainer.heatmaps`; or none of the pictures can be read.
        OSError: The folder cannot be written.
    """
    request, style, device = request or Request(), style or Style(), device or choose_device()
    folder.mkdir(parents=True, exist_ok=True)
    made = ExplainResult(folder)
    explainer = BatchExplainer(trained.network.to(device), request)
    writer = ResultWriter(folder, trained.class_names, style)
    with _threads() as pool:
        batches = decode_batches(files, batch_size, trained.preprocess, pool, made.broken)
        prepared = _prepared(progress(batches, len(files), "Pictures"), trained.preprocess, device)
        results, peaks = _explain_and_draw(explainer, writer, prepared, pool, made.broken, labels)
    made.done = len(results)
    for doubt in explainer.doubts:
        log.warning("%s", doubt)
    is_cut = any(result.source.is_cut for result in results[:PANELS])
    legend = Legend(_title(trained, made.done), explainer.layers, style, peaks, request.counterfactual, is_cut)
    settings = {**asdict(request), "methods": list(explainer.layers), **asdict(style), "batch_size": batch_size}
    record = _record(trained, made, {**settings, "device": str(device)}, explainer.layers)
    made.sheet = writer.finish(results, legend, {**record, **(about or {})})
    return made


def _prepared(
    batches: Iterable[list[DecodedPicture]], preprocess: Preprocess, device: torch.device
) -> Iterator[tuple[list[DecodedPicture], Tensor]]:
    """Yield each batch together with the network's input for it."""
    for batch in batches:
        squares = torch.from_numpy(np.stack([picture.square for picture in batch])).to(device)
        yield batch, preprocess(squares.permute(0, 3, 1, 2))


def _explain_and_draw(
    explainer: BatchExplainer,
    writer: ResultWriter,
    batches: Iterable[tuple[list[DecodedPicture], Tensor]],
    pool: ThreadPoolExecutor,
    broken: list[str],
    labels: Labels | None,
) -> tuple[list[PictureResult], dict[str, float]]:
    """Compute the maps of all pictures and draw them.

    Returns:
        The results, and the maximum of each method's maps; no maxima if each map is drawn on its own scale.
    """
    results = _explain_batches(explainer, writer, batches, pool, labels)
    if not results:
        told = "The picture could not" if len(broken) == 1 else f"None of the {len(broken)} pictures could"
        raise UserError(f"{told} be read. {broken[0]}")
    if writer.style.normalize == "per_image":
        return results, {}
    return results, _draw_set(writer, results, pool, broken)  # only now, as the maximum is of all batches


def _explain_batches(
    explainer: BatchExplainer,
    writer: ResultWriter,
    batches: Iterable[tuple[list[DecodedPicture], Tensor]],
    pool: ThreadPoolExecutor,
    labels: Labels | None,
) -> list[PictureResult]:
    """Compute the maps of all batches; with `per_image` scaling, draw each batch while the next one is computed."""
    results: list[PictureResult] = []
    drawing: list[Future[None]] = []
    for batch, inputs in batches:
        new = explainer.explain(inputs, [picture.source for picture in batch])
        if labels is not None:  # the maps are of the predicted classes all the same
            new = [_with_truth(result, labels[result.source.number]) for result in new]
        for finished in drawing:  # wait: the pictures of more batches would fill the memory
            finished.result()
        if writer.style.normalize == "per_image":
            drawing = [
                pool.submit(_draw_alone, writer, result, picture, len(results) + i < PANELS)
                for i, (result, picture) in enumerate(zip(new, batch, strict=True))
            ]
        results += new
    for finished in drawing:
        finished.result()
    return results


def _with_truth(result: PictureResult, label: int | tuple[int, ...]) -> PictureResult:
    return replace(result, label=label) if isinstance(label, int) else replace(result, true_classes=label)


def _draw_alone(writer: ResultWriter, result: PictureResult, picture: DecodedPicture, on_sheet: bool) -> None:
    (heat,) = scale([result], "per_image").heat
    writer.draw(result, heat, np.asarray(picture.whole), on_sheet)


def _draw_set(
    writer: ResultWriter, results: Sequence[PictureResult], pool: ThreadPoolExecutor, broken: list[str]
) -> dict[str, float]:
    """Read all pictures again, draw them on one scale, and return the maximum of each method's maps.

    A picture that can no longer be read keeps its maps and predictions, but has no overlays; `broken` gets a line about
    it.
    """
    scaled = scale(results, writer.style.normalize)

    def draw(number: int) -> str | None:
        source = results[number].source
        try:
            picture = read_picture(source.file)
            if picture.size != source.size:
                raise UserError(f"{source.file} has changed its size since it was explained.")
        except UserError as error:
            return f"Not drawn: {error}"
        writer.draw(results[number], scaled.heat[number], np.asarray(picture), number < PANELS)
        return None

    for told in filter(None, pool.map(draw, range(len(results)))):
        log.warning("%s", told)
        broken.append(told)
    return scaled.peaks


def _title(trained: TrainedNetwork, count: int) -> str:
    pictures = "1 picture" if count == 1 else f"{count:,} pictures"
    return f"{trained.name}: {f'the first {PANELS} of ' if count > PANELS else ''}{pictures}"


def _record(
    trained: TrainedNetwork, made: ExplainResult, settings: dict[str, Any], layers: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Content of `explain.json`."""
    versions = provenance()
    own = {"camlab": __version__, **{name: version(name) for name in ("numpy", "pillow")}, "opencv": cv2.__version__}
    return {
        "time": utc_now(),
        "network": {
            "name": trained.name,
            "checkpoint": None if trained.path is None else str(trained.path),
            "classes": len(trained.class_names),
            "preprocess": trained.preprocess.as_dict(),
        },
        "layers": {method: list(names) for method, names in layers.items()},
        "settings": settings,
        "pictures": {"explained": made.done, "skipped": made.broken},
        **versions,
        "versions": {**own, **versions["versions"]},
    }


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """A pool with one thread per core; OpenCV's own threads are switched off meanwhile."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            yield pool
    finally:
        cv2.setNumThreads(before)
