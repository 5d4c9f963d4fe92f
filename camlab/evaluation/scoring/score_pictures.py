"""Score the heatmaps of one network on a set of pictures; finished methods are kept in the output folder."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from camlab.attribution.classifier import logits_of
from camlab.attribution.network_input import output_of
from camlab.errors import UserError, first_line
from camlab.evaluation.scoring.chunks import Chunks
from camlab.evaluation.scoring.kept import Kept, NotScored
from camlab.evaluation.scoring.picture_set import PictureSet
from camlab.evaluation.scoring.request import Request
from camlab.evaluation.scoring.rows import Row, find_rows
from camlab.evaluation.scoring.summary import Summary, check_scoring, summarise
from camlab.models.trained_network import TrainedNetwork

log = logging.getLogger(__name__)

_BOXES = "max_box_acc"


def score_pictures(
    trained: TrainedNetwork,
    pictures: PictureSet,
    folder: Path,
    request: Request,
    device: torch.device,
    validation: PictureSet | None = None,
) -> Summary:
    """Score all methods and pseudo-methods, and check the scoring itself.

    Each finished method is kept in the folder: a scoring that was interrupted goes on, and gives the same numbers.

    Args:
        trained: The network.
        pictures: The pictures.
        folder: Output folder; it is created if it does not exist.
        request: What is to be scored.
        device: Device of the network.
        validation: Pictures with masks on which `max_box_acc` chooses its thresholds; without them, each half of the
            pictures chooses for the other, and a note says so.

    Raises:
        UserError: No method applies, the network cannot take the pictures, or the folder cannot be written.
        ScoringError: The check of the scoring itself has failed.
    """
    network = trained.network.to(device).eval()
    chunks = Chunks(network, pictures, trained.preprocess, request.batch_size, request.seed, device)
    if pictures.labels is not None:
        _check_classes(chunks, _count_classes(network, chunks, trained))
    rows, refused = find_rows(network, chunks.images([0]), request, pictures.masks is not None)
    for name, reason in refused.items():
        log.warning("%s is left out: %s", name, reason)
    doubts = list(dict.fromkeys(doubt for row in rows for doubt in row.doubts))
    for doubt in doubts:
        log.warning("%s", doubt)
    kept = Kept(folder, network, chunks, trained.preprocess, request)
    choosing = _choosing(kept, validation, request, device)
    measured, overlaps = _measure(pictures, kept, choosing, rows, refused)
    if all(row.is_pseudo for row in measured):
        raise UserError(f"No method can be scored. {next(iter(refused.values()))}")
    measures = request.measures(pictures.masks is not None)
    notes = [*pictures.notes, *doubts, *([_told(choosing)] if _BOXES in measures else [])]
    pictures = replace(pictures, notes=tuple(notes))
    return summarise(pictures, measures, measured, refused, overlaps)


def _measure(
    pictures: PictureSet, kept: Kept, choosing: Kept | None, rows: list[Row], refused: dict[str, str]
) -> tuple[dict[Row, Mapping[str, Tensor]], dict[str, Tensor]]:
    """Measure all rows, and the boxes of the validation pictures; why a row cannot be scored is added to `refused`."""
    measured: dict[Row, Mapping[str, Tensor]] = {}
    overlaps: dict[str, Tensor] = {}
    ticks = kept.ticks(rows)
    for row in rows:
        try:
            values = kept.values(row, ticks)
            if choosing is not None:
                overlaps[row.name] = choosing.values(row, iter(()))[_BOXES]
        except NotScored as error:
            refused[row.name] = first_line(error)
            log.warning("%s is left out: %s", row.name, refused[row.name])
            continue
        measured[row] = values
        check_scoring(pictures, row, values)
    next(ticks, None)
    return measured, overlaps


def _choosing(kept: Kept, validation: PictureSet | None, request: Request, device: torch.device) -> Kept | None:
    """What measures the validation pictures that choose the thresholds of `max_box_acc`; None if none do."""
    if validation is None or validation.masks is None or _BOXES not in request.measures(kept.has_masks):
        return None
    return kept.of_others(validation, replace(request, scores=(_BOXES,), gate=False), device)


def _told(choosing: Kept | None) -> str:
    if choosing is None:
        return (
            f"{_BOXES}: no validation pictures with masks belong to these, so every second picture is scored with the"
            " thresholds that the others choose."
        )
    place, n = choosing.place
    return f"{_BOXES}: the thresholds are those that are best on {n:,} pictures of {place}."


def _count_classes(network: nn.Module, chunks: Chunks, trained: TrainedNetwork) -> int:
    """Number of the network's logits, and at most that of its classes' names."""
    with torch.inference_mode():
        images = chunks.images([0])
        count = logits_of(output_of(network, images), len(images)).shape[1]
    return min(count, len(trained.class_names))


def _check_classes(chunks: Chunks, count: int) -> None:
    labels = chunks.pictures.labels
    assert labels is not None
    if int(labels.min()) < 0 or int(labels.max()) >= count:
        raise UserError(f"{chunks.pictures.place}: class {int(labels.max())}, but the network has {count} classes.")
