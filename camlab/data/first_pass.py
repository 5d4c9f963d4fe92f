"""The first pass over one's own pictures: each is decoded once into a store; later runs read what is there."""

import hashlib
import io
import logging
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from camlab.data.picture_table import Picture
from camlab.data.stored_set import StoredMasks
from camlab.data.truth import MaskPicture
from camlab.errors import UserError, plain
from camlab.models.preprocess import Preprocess
from camlab.storage.ahead import map_ahead
from camlab.storage.cache_folder import free_disk, size_text
from camlab.storage.manifest import Manifest, Stamp
from camlab.storage.pictures import decode_picture
from camlab.storage.progress import progress
from camlab.storage.record_store import RecordStore, pictures_folder

log = logging.getLogger(__name__)

_LARGEST_FILE = 2 << 30  # bytes
_AT_ONCE = 8  # pictures that a thread decodes before it hands them over
_AHEAD_BYTES = 32 << 20  # of decoded pictures that may wait; threads go on while the store waits for the disk


@dataclass(frozen=True)
class Stored:
    """What the first pass gives.

    Attributes:
        store: The store with the decoded pictures.
        pictures: The pictures that could be read, M of N.
        rows: Their positions in the store, int64, M.
        sizes: Their widths and heights, int64, M×2.
        keys: Hashes of their contents, 32 bytes each.
        masks: Their masks; None if no picture has one.
    """

    store: RecordStore
    pictures: tuple[Picture, ...]
    rows: np.ndarray
    sizes: np.ndarray
    keys: tuple[bytes, ...]
    masks: StoredMasks | None


class _Record(NamedTuple):
    """What is stored of a picture or a mask: its key, its record (None if it is in the store) and its size."""

    key: bytes
    record: bytes | None
    size: tuple[int, int]


class _Decoded(NamedTuple):
    picture: _Record
    mask: _Record | None
    stamp: Stamp
    mask_stamp: Stamp | None


class FirstPass:
    """Decodes pictures into a store, several at a time, and remembers which files it has read.

    Args:
        cache: Folder `paths.cache`.
        place: Name of the place of the pictures, by which the manifest is found.
        prepare: How a square is cut out of a picture and resized.
        skip_broken: Whether to go on without pictures that cannot be read.
    """

    def __init__(self, cache: str, place: str, prepare: Preprocess, skip_broken: bool = False) -> None:
        folder, side = pictures_folder(cache), prepare.image_size
        self.prepare, self.skip_broken = prepare, skip_broken
        spec = {"side": side, "resize": prepare.resize_size, "interpolation": prepare.interpolation}
        self.store = RecordStore(folder, {"kind": "rgb", **spec}, 3 * side * side, f"pictures of {side}²")
        self.masks = RecordStore(folder, {"kind": "mask", **spec}, -(-side * side // 8), f"masks of {side}²")
        name = hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        self._manifest_file = folder / f"{name}.files"
        self._broken: dict[int, str] = {}

    def run(self, pictures: Sequence[Picture]) -> Stored:
        """Decode what is not in the store yet.

        Raises:
            UserError: Some pictures cannot be read, which are all named; or the disk is too small.
        """
        keys: list[bytes | None] = [None] * len(pictures)
        mask_keys: list[bytes | None] = [None] * len(pictures)
        has_masks = any(picture.truth is not None for picture in pictures)
        with self.store.filling(), self.masks.filling() if has_masks else nullcontext():
            manifest = Manifest(self._manifest_file)
            missing = []
            for i, picture in enumerate(pictures):
                keys[i], mask_keys[i], whole = self._known(manifest, picture)
                missing += [] if whole else [i]
            try:
                self._decode(pictures, missing, keys, mask_keys, manifest)
            finally:
                manifest.flush()
        self._tell_broken(pictures)
        return self._result(pictures, keys, mask_keys)

    def _known(self, manifest: Manifest, picture: Picture) -> tuple[bytes | None, bytes | None, bool]:
        """Keys of a picture and its mask, and whether both are known and in the store."""
        try:
            key = manifest.get(picture.source.id, picture.source.stamp())
            if key is None or key not in self.store:
                return None, None, False
            if (truth := picture.truth) is None:
                return key, None, True
            if isinstance(truth, MaskPicture):
                mask = manifest.get(truth.source.id, truth.source.stamp())
            else:
                mask = truth.read(self.store.size(key))[0]
        except (OSError, UserError):  # decoding says what is wrong
            return None, None, False
        there = mask is not None and mask in self.masks and self.masks.size(mask) == self.store.size(key)
        return key, mask, there

    def _decode(
        self,
        pictures: Sequence[Picture],
        missing: list[int],
        keys: list[bytes | None],
        mask_keys: list[bytes | None],
        manifest: Manifest,
    ) -> None:
        if not missing:
            return
        self._check_disk(len(missing), sum(pictures[i].truth is not None for i in missing))
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        ahead = max(2 * threads, _AHEAD_BYTES // (_AT_ONCE * self.store.record_bytes))
        parts = (missing[start : start + _AT_ONCE] for start in range(0, len(missing), _AT_ONCE))
        batches = map_ahead(lambda part: [(i, self._decode_one(pictures[i])) for i in part], parts, threads, ahead)
        for batch in progress(batches, len(missing), "Pictures decoded"):
            for i, result in batch:
                if isinstance(result, str):
                    self._broken[i] = result
                else:
                    keys[i], mask_keys[i] = self._keep(pictures[i], result, manifest)

    def _keep(self, picture: Picture, decoded: _Decoded, manifest: Manifest) -> tuple[bytes, bytes | None]:
        """Add what was decoded to the stores and to the manifest; returns the keys of the picture and of its mask."""
        manifest.add(picture.source.id, decoded.stamp, decoded.picture.key)
        if decoded.mask is None:
            return _add(self.store, decoded.picture), None
        if isinstance(picture.truth, MaskPicture) and decoded.mask_stamp is not None:
            manifest.add(picture.truth.source.id, decoded.mask_stamp, decoded.mask.key)
        return _add(self.store, decoded.picture), _add(self.masks, decoded.mask)

    def _decode_one(self, picture: Picture) -> _Decoded | str:
        """Decode a picture and its mask; a text says what is wrong with them."""
        try:
            stamp, truth = picture.source.stamp(), picture.truth
            mask_stamp = truth.source.stamp() if isinstance(truth, MaskPicture) else None
            if stamp.size > _LARGEST_FILE:
                return f"{picture.source.id} is larger than 2 GiB."
            record = self._picture(picture)
            return _Decoded(record, self._mask(picture, record.size), stamp, mask_stamp)
        except UserError as error:
            return str(error)
        except OSError as error:
            return f"{picture.source.id} cannot be read ({error.strerror or error})."

    def _picture(self, picture: Picture) -> _Record:
        content = picture.source.read()
        key = hashlib.sha256(content).digest()
        if key in self.store:
            return _Record(key, None, self.store.size(key))
        decoded = decode_picture(io.BytesIO(content), picture.source.id)
        return _Record(key, self.prepare.prepare(decoded).transpose(2, 0, 1).tobytes(), decoded.size)

    def _mask(self, picture: Picture, size: tuple[int, int]) -> _Record | None:
        if picture.truth is None:
            return None
        try:
            key, content = picture.truth.read(size)
            if key in self.masks and self.masks.size(key) == size:
                return _Record(key, None, size)
            mask = picture.truth.draw(content, size)
        except UserError as error:
            if isinstance(picture.truth, MaskPicture):  # the message names the file of the mask
                raise
            raise UserError(f"{picture.source.id}: {error}") from error
        square = self.prepare.prepare(Image.merge("RGB", [mask] * 3))[..., 0] >= 128
        return _Record(key, np.packbits(square).tobytes(), size)

    def _check_disk(self, pictures: int, masks: int) -> None:
        num_bytes = pictures * self.store.record_bytes + masks * self.masks.record_bytes
        folder, size = self.store.folder, size_text(num_bytes)
        if (free := free_disk(folder)) < num_bytes:
            raise UserError(
                f"{pictures:,} decoded pictures take {size}, but the disk of {folder} has {size_text(free)} left.",
                f"Make room (camlab-cache 'paths.cache={folder.parent}' lists what is kept), or give another place with"
                " paths.cache=FOLDER.",
            )
        count = "1 picture" if pictures == 1 else f"{pictures:,} pictures"
        log.info("Decoding %s once: %s in %s", count, size, plain(str(folder)))

    def _tell_broken(self, pictures: Sequence[Picture]) -> None:
        if not self._broken:
            return
        lines, count = list(self._broken.values()), f"{len(self._broken):,} of {len(pictures):,} pictures"
        way_out = "Repair or remove them, or go on without them with data.skip_broken=true."
        if len(lines) == 1 and not self.skip_broken:
            raise UserError(lines[0], way_out.replace("them", "it"))
        for line in lines:
            log.warning("%s", plain(line))
        if not self.skip_broken:
            raise UserError(f"{count} cannot be used; they are named above.", way_out)
        log.warning("data.skip_broken=true: going on without %s.", count)

    def _result(
        self, pictures: Sequence[Picture], keys: Sequence[bytes | None], mask_keys: Sequence[bytes | None]
    ) -> Stored:
        sound = [(i, key) for i, key in enumerate(keys) if key is not None and i not in self._broken]
        rows = np.array([self.store.row(key) for _, key in sound], np.int64)
        own = [mask_keys[i] for i, _ in sound]
        masks = np.array([-1 if key is None else self.masks.row(key) for key in own], np.int64)
        return Stored(
            self.store,
            tuple(pictures[i] for i, _ in sound),
            rows,
            self.store.sizes(rows),
            tuple(key for _, key in sound),
            StoredMasks(self.masks, masks, self.prepare.image_size) if (masks >= 0).any() else None,
        )


def _add(store: RecordStore, found: _Record) -> bytes:
    if found.record is not None:
        store.add(found.key, found.record, found.size)
    return found.key
