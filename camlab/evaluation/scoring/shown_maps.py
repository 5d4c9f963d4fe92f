"""Write the maps of some of the scored pictures, for the page that browses them (docs/viewer.md)."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from camlab.attribution.results import PictureResult, Source
from camlab.drawing import render
from camlab.drawing.maps_file import write_maps
from camlab.evaluation.scoring.chunks import Chunks
from camlab.evaluation.scoring.kept import Kept, NotScored
from camlab.evaluation.scoring.picture_set import PictureSet, spread
from camlab.evaluation.scoring.request import Request
from camlab.evaluation.scoring.rows import Row
from camlab.evaluation.scoring.summary import Summary
from camlab.models.trained_network import TrainedNetwork
from camlab.runs import run_folder
from camlab.runs.score_files import MAPS, MASKS, PICTURES, picture_name, remove_maps
from camlab.storage.progress import progress

log = logging.getLogger(__name__)


def write_shown_maps(
    trained: TrainedNetwork, summary: Summary, folder: Path, request: Request, device: torch.device, count: int
) -> None:
    """Write the maps of all rows for some of the pictures, the pictures and their masks (docs/file_formats.md).

    Maps are kept in the folder row by row, so that a command that was interrupted goes on.

    Args:
        trained: The network.
        summary: What the scoring has found.
        folder: Output folder of the scoring. Maps that it holds are replaced.
        request: What was scored.
        device: Device of the network.
        count: Number of pictures, evenly spread; with 0, there are no maps.

    Raises:
        UserError: The folder cannot be written.
        OSError: The same.
    """
    positions = spread(len(summary.pictures), count)
    if not positions:
        remove_maps(folder)
        return
    network, pictures = trained.network.to(device).eval(), summary.pictures.some(positions)
    chunks = Chunks(network, pictures, trained.preprocess, request.batch_size, request.seed, device)
    kept = Kept(folder, network, chunks, trained.preprocess, request)
    rows = sorted(summary.rows, key=lambda row: row.is_pseudo)  # methods first: the page shows the first one
    maps = _maps(kept, rows, len(pictures))
    remove_maps(folder)
    place = folder / run_folder.HEATMAPS
    _write_pictures(pictures, positions, place)
    layers = {row.name: row.layers or ("",) for row in rows if row.name in maps}
    results = _results(pictures, positions, kept, maps)
    write_maps(place / MAPS, results, trained.class_names, layers, Path(PICTURES))  # the last file: then all are there


def _maps(kept: Kept, rows: Sequence[Row], n: int) -> dict[str, Tensor]:
    """The maps of each row, N×R×h×w; a row whose maps are not finite for another class is left out."""
    found = {}
    for row, _ in zip(rows, progress([range(n)] * len(rows), n * len(rows), "Maps", unit="maps"), strict=True):
        try:
            found[row.name] = kept.maps(row)
        except NotScored as error:
            log.warning("%s has scores, but its maps are not kept: %s", row.name, error)
    return found


def _results(
    pictures: PictureSet, positions: Sequence[int], kept: Kept, maps: Mapping[str, Tensor]
) -> list[PictureResult]:
    height, width = pictures.images.shape[-2:]
    probabilities = kept.logits.sigmoid() if kept.logits.shape[1] == 1 else kept.logits.softmax(dim=1)
    labels = [None] * len(pictures) if pictures.labels is None else pictures.labels.tolist()
    return [
        PictureResult(
            source=Source(Path(picture_name(position)), name, position, (width, height), (0, 0, width, height)),
            class_idx=tuple(kept.classes[i].tolist()),
            probabilities=probabilities[i],
            maps={row: [of_all[i]] for row, of_all in maps.items()},
            label=labels[i],
        )
        for i, (position, name) in enumerate(zip(positions, pictures.names, strict=True))
    ]


def _write_pictures(pictures: PictureSet, positions: Sequence[int], place: Path) -> None:
    """Write the pictures, and the masks of those that have one, white on the object and as large as the picture."""
    size = (pictures.images.shape[-2], pictures.images.shape[-1])
    masks = None if pictures.masks is None else torch.nn.functional.interpolate(pictures.masks[:, None].float(), size)
    for name in (PICTURES, MASKS) if masks is not None else (PICTURES,):
        (place / name).mkdir(parents=True, exist_ok=True)
    for i, position in enumerate(positions):
        render.write_image(place / PICTURES / picture_name(position), pictures.images[i].permute(1, 2, 0).numpy())
        if masks is not None and masks[i].any():
            white = (masks[i, 0].numpy() * 255).astype(np.uint8)
            render.write_image(place / MASKS / picture_name(position), np.repeat(white[..., None], 3, axis=-1))
