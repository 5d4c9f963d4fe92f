"""The values and maps of finished rows, which are kept on disk, so that an interrupted scoring goes on."""

import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from camlab import __version__
from camlab.errors import UserError, first_line
from camlab.evaluation.scoring.chunks import Chunk, Chunks
from camlab.evaluation.scoring.measuring import Measuring
from camlab.evaluation.scoring.picture_set import PictureSet
from camlab.evaluation.scoring.request import Request, packed, unpacked
from camlab.evaluation.scoring.rows import Row
from camlab.models.preprocess import Preprocess
from camlab.storage.array_store import ArrayStore
from camlab.storage.progress import progress

Computed = TypeVar("Computed")

KEPT = ".scores"  # folder in the output folder
_FORMAT = 1  # of the values; it changes when they are computed in another way


class NotScored(Exception):
    """A method does not apply, or gives maps that cannot be scored."""


class Kept:
    """The values and maps of finished rows on disk, and how the others are computed.

    Args:
        folder: Output folder.
        network: The network, in eval mode.
        chunks: The pictures.
        preprocess: Preparation of the network's input.
        request: What is to be scored.
    """

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

    def of_others(self, pictures: PictureSet, request: Request, device: torch.device) -> "Kept":
        """The same of other pictures."""
        chunks = Chunks(self._network, pictures, self._preprocess, request.batch_size, request.seed, device)
        return Kept(self._folder, self._network, chunks, self._preprocess, request)

    def ticks(self, rows: list[Row]) -> Iterator[range]:
        """Show the progress of all rows that are not finished; each `next` stands for a chunk that begins."""
        waiting = [row for row in rows if self._key(row) not in self._store]
        every = [which for _ in waiting for which in self._chunks]
        return progress(every, sum(map(len, every)), "Scoring", unit="maps")

    def values(self, row: Row, ticks: Iterator[range]) -> dict[str, Tensor]:
        """Return the columns of a row, which are computed unless they are on disk.

        Raises:
            NotScored: The method cannot be scored.
        """
        shape = (len(self._chunks.pictures), sum(self._columns.values()))
        found = self._store.get(self._key(row), shape, lambda: self._measured(row, ticks), row.name)
        return unpacked(torch.from_numpy(found.copy()), self._columns)

    def maps(self, row: Row) -> Tensor:
        """Return the signed maps of a row, N×R×h×w for the classes `Chunk.classes`, computed unless they are on disk.

        Raises:
            NotScored: A map is not finite.
        """
        shape = (len(self._chunks.pictures), self.classes.shape[1], *row.grid)
        name = f"maps of {row.name}"
        return torch.from_numpy(self._store.get(self._key(row, "maps"), shape, lambda: self._mapped(row), name).copy())

    @functools.cached_property
    def logits(self) -> Tensor:
        """The logits of all pictures, float32 N×M."""
        return torch.cat([self._chunks.get(which).passes.logits for which in self._chunks]).cpu()

    @functools.cached_property
    def classes(self) -> Tensor:
        """The classes that `maps` are of, N×R."""
        return torch.cat([self._chunks.get(which).classes for which in self._chunks]).cpu()

    def _measured(self, row: Row, ticks: Iterator[range]) -> Iterator[np.ndarray]:
        measuring = Measuring(self._network, row, self._request)
        for which, values in self._each(row, measuring.measure, ticks):
            yield packed(values, self._columns, len(which)).numpy()

    def _mapped(self, row: Row) -> Iterator[np.ndarray]:
        measuring = Measuring(self._network, row, self._request)
        for _, maps in self._each(row, measuring.maps, iter(())):
            yield maps.float().cpu().numpy()

    def _each(
        self, row: Row, compute: Callable[[Chunk], Computed], ticks: Iterator[range]
    ) -> Iterator[tuple[range, Computed]]:
        """What a function computes of each chunk, whose pictures come with it."""
        for which in self._chunks:
            next(ticks, None)
            chunk = self._chunks.get(which)
            try:
                yield which, compute(chunk)
            except UserError as error:
                raise (error if row.is_pseudo else NotScored(first_line(error))) from error

    def _key(self, row: Row, *what: str) -> str:
        own = json.dumps([self._about, row.method, row.layers, row.layer, row.grid, *what])
        return hashlib.sha256(own.encode()).hexdigest()[:32]


def _hash(network: nn.Module) -> str:
    """Hash of a network's weights and buffers."""
    digest = hashlib.sha256(str(type(network)).encode())
    for name, tensor in network.state_dict().items():
        if isinstance(tensor, Tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
