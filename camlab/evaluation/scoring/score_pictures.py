"""Score the heatmaps of one network on a set of pictures; finished methods are kept in the output folder."""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from camlab import __version__
from camlab.errors import UserError, first_line
from camlab.evaluation.scoring.chunks import Chunks
from camlab.evaluation.scoring.measuring import Measuring
from camlab.evaluation.scoring.picture_set import PictureSet
from camlab.evaluation.scoring.request import Request, packed, unpacked
from camlab.evaluation.scoring.rows import Row, find_rows
from camlab.evaluation.scoring.summary import Summary, check_scoring, summarise
from camlab.models.preprocess import Preprocess
from camlab.models.trained_network import TrainedNetwork
from camlab.storage.array_store import ArrayStore
from camlab.storage.progress import progress

log = logging.getLogger(__name__)

KEPT = ".scores"  # folder in the output folder with the values of finished methods
_BOXES = "max_box_acc"
_FORMAT = 1  # of these values; it changes when they are computed in another way


class _NotScored(Exception):
    """A method does not apply, or gives maps that cannot be scored."""


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
        _check_classes(chunks, len(trained.class_names))
    rows, refused = find_rows(network, chunks.images([0]), request, pictures.masks is not None)
    for name, reason in refused.items():
        log.warning("%s is left out: %s", name, reason)
    kept = _Kept(folder, network, chunks, trained.preprocess, request)
    choosing = _choosing(kept, validation, request, device)
    measured, overlaps = _measure(pictures, kept, choosing, rows, refused)
    if all(row.is_pseudo for row in measured):
        raise UserError(f"No method can be scored. {next(iter(refused.values()))}")
    measures = request.measures(pictures.masks is not None)
    if _BOXES in measures:
        pictures = replace(pictures, notes=(*pictures.notes, _told(choosing)))
    return summarise(pictures, measures, measured, refused, overlaps)


def _measure(
    pictures: PictureSet, kept: "_Kept", choosing: "_Kept | None", rows: list[Row], refused: dict[str, str]
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
        except _NotScored as error:
            refused[row.name] = first_line(error)
            log.warning("%s is left out: %s", row.name, refused[row.name])
            continue
        measured[row] = values
        check_scoring(pictures, row, values)
    next(ticks, None)
    return measured, overlaps


def _choosing(kept: "_Kept", validation: PictureSet | None, request: Request, device: torch.device) -> "_Kept | None":
    """What measures the validation pictures that choose the thresholds of `max_box_acc`; None if none do."""
    if validation is None or validation.masks is None or _BOXES not in request.measures(kept.has_masks):
        return None
    return kept.of_others(validation, replace(request, scores=(_BOXES,), gate=False), device)


def _told(choosing: "_Kept | None") -> str:
    if choosing is None:
        return (
            f"{_BOXES}: there is no validation split with masks, so every second picture is scored with the thresholds"
            " that the others choose."
        )
    place, n = choosing.place
    return f"{_BOXES}: the thresholds are those that are best on {n:,} pictures of {place}."


class _Kept:
    """The values of finished rows on disk, and how the others are computed."""

    def __init__(self, folder: Path, network: nn.Module, chunks: Chunks, preprocess: Preprocess, request: Request):
        self._store = ArrayStore(folder / KEPT, "Give another out=FOLDER.")
        self._folder, self._preprocess = folder, preprocess
        self._network, self._chunks, self._request = network, chunks, request
        self._columns = request.columns(chunks.pictures.masks is not None)
        about = [
            _FORMAT,
            __version__,
            _hash(network),
            chunks.pictures.fingerprint(),
            preprocess.as_dict(),
            self._columns,
        ]
        self._about = json.dumps([*about, request.steps, request.seed, *([] if request.gate else ["no gate"])])

    @property
    def has_masks(self) -> bool:
        """Whether any picture has a mask."""
        return self._chunks.pictures.masks is not None

    @property
    def place(self) -> tuple[str, int]:
        """Where the pictures come from, and their number."""
        return self._chunks.pictures.place, len(self._chunks.pictures)

    def of_others(self, pictures: PictureSet, request: Request, device: torch.device) -> "_Kept":
        """The same of other pictures."""
        chunks = Chunks(self._network, pictures, self._preprocess, request.batch_size, request.seed, device)
        return _Kept(self._folder, self._network, chunks, self._preprocess, request)

    def ticks(self, rows: list[Row]) -> Iterator[range]:
        """Show the progress of all rows that are not finished; each `next` stands for a chunk that begins."""
        waiting = [row for row in rows if self._key(row) not in self._store]
        every = [which for _ in waiting for which in self._chunks]
        return progress(every, sum(map(len, every)), "Scoring", unit="maps")

    def values(self, row: Row, ticks: Iterator[range]) -> dict[str, Tensor]:
        """Return the columns of a row, which are computed unless they are on disk.

        Raises:
            _NotScored: The method cannot be scored.
        """
        shape = (len(self._chunks.pictures), sum(self._columns.values()))
        found = self._store.get(self._key(row), shape, lambda: self._compute(row, ticks), row.name)
        return unpacked(torch.from_numpy(found.copy()), self._columns)

    def _compute(self, row: Row, ticks: Iterator[range]) -> Iterator[np.ndarray]:
        measuring = Measuring(self._network, row, self._request)
        for which in self._chunks:
            next(ticks, None)
            chunk = self._chunks.get(which)
            try:
                found = measuring.measure(chunk)
            except UserError as error:
                raise (error if row.is_pseudo else _NotScored(first_line(error))) from error
            yield packed(found, self._columns, len(which)).numpy()

    def _key(self, row: Row) -> str:
        own = json.dumps([self._about, row.method, row.layers, row.layer, row.grid])
        return hashlib.sha256(own.encode()).hexdigest()[:32]


def _check_classes(chunks: Chunks, count: int) -> None:
    labels = chunks.pictures.labels
    assert labels is not None
    if int(labels.min()) < 0 or int(labels.max()) >= count:
        raise UserError(f"{chunks.pictures.place}: class {int(labels.max())}, but the network has {count} classes.")


def _hash(network: nn.Module) -> str:
    """Hash of a network's weights and buffers."""
    digest = hashlib.sha256(str(type(network)).encode())
    for name, tensor in network.state_dict().items():
        if isinstance(tensor, Tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
