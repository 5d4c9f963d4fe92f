"""A frozen backbone sees each image once: its features are kept, and the head trains on them."""

import functools
import hashlib
import json
import logging
import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import lightning as L
import numpy as np
import psutil
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from camlab.data.module import ImageData, Split
from camlab.models.cam_net import CamNet
from camlab.progress import progress
from camlab.storage.array_store import ArrayStore
from camlab.training.classifier import Classifier

log = logging.getLogger(__name__)

_BATCH = {"cpu": 32}  # pictures that pass the backbone together: few, so that a CPU's caches hold what they become
_DEFAULT_BATCH = 512
_Shapes = dict[Split, tuple[int, ...]]
_FORMAT = 1  # of what is kept; another number makes all earlier arrays strangers


class FeatureCache(L.Callback):
    """In mode `frozen`, replaces the images of a run by what the head needs to know of them (`CamNet.summarize`).

    An image and its mirror image pass the backbone once, when training begins; the results are kept in the data module
    and, for later runs, on disk under a hash of the pictures, the weights and the preprocessing. Nothing changes but
    the time it takes: batches, flips and checkpoints are those of a run without it, weights and metrics equal but for
    rounding. Where it cannot be used, one line says why.

    Args:
        folder: of the arrays on disk.
    """

    def __init__(self, folder: str) -> None:
        self.store = ArrayStore(Path(folder).expanduser())

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data: ImageData = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(pl_module, Classifier)
        if not pl_module.network.frozen or data.summaries:
            return
        one_pass = BackbonePass(trainer, pl_module.network, data)
        keys = {split: one_pass.key(split) for split in one_pass.splits}
        shapes = {split: one_pass.shape(split) for split in keys}
        missing = {split: shapes[split] for split, key in keys.items() if key not in self.store}
        if obstacle := self._obstacle(trainer, data, shapes, missing):
            _say("Features are not cached: %s. The whole network runs in every epoch.", obstacle)
            return
        passing = sum(shape[0] * shape[1] for shape in missing.values())
        if passing:
            where = f"Features: {_gigabytes(missing)} in {self.store.folder}"
            _say("Frozen backbone: %s images pass it once, then only the head trains. %s.", f"{passing:,}", where)
        began = time.perf_counter()
        for split, key in keys.items():
            compute = functools.partial(one_pass.run, split)
            array = self.store.get(key, shapes[split], compute, one_pass.about(split))
            data.summaries[split] = torch.from_numpy(array).to(pl_module.device)
        if passing:
            _say("Features are there after %.1f s.", time.perf_counter() - began)

    def _obstacle(
        self,
        trainer: L.Trainer,
        data: ImageData,
        all_shapes: _Shapes,
        missing: _Shapes,
    ) -> str | None:
        """Why this run cannot, or need not, use cached features."""
        if data.max_shift > 0:
            return f"data.max_shift={data.max_shift} makes every picture new"
        if (memory := _free_memory(trainer.strategy.root_device)) < 2 * _num_bytes(all_shapes):
            return f"{_gigabytes(all_shapes)} are more than half of the free memory, {memory / 1e9:.1f} GB"
        if (disk := _free_disk(self.store.folder)) < 2 * _num_bytes(missing):
            return (
                f"{_gigabytes(missing)} are more than half of the free disk at {self.store.folder}, {disk / 1e9:.1f} GB"
                " (paths.cache=FOLDER chooses another)"
            )
        views = all_shapes["train"][1]
        if missing and trainer.max_epochs is not None and 0 < trainer.max_epochs < views:
            return f"computing them costs more than trainer.max_epochs={trainer.max_epochs}"
        return None


class BackbonePass:
    """The backbone over all images of a split: what comes out, and what it depends on."""

    def __init__(self, trainer: L.Trainer, network: CamNet, data: ImageData) -> None:
        self.trainer, self.network, self.data = trainer, network, data
        self.device = trainer.strategy.root_device
        side = data.preprocess.image_size
        self.summary_shape = tuple(self._summarize(torch.zeros(1, 3, side, side, device=self.device)).shape[1:])

    @property
    def splits(self) -> list[Split]:
        """Those that the run looks at; a test with masks needs the images themselves."""
        test: tuple[Split, ...] = ("test",) if self.data.splits["test"].masks is None else ()
        return list(dict.fromkeys(("train", *self.data.validation_splits, *test)))

    def shape(self, split: Split) -> tuple[int, ...]:
        return len(self.data.splits[split]), self._views(split), *self.summary_shape

    def key(self, split: Split) -> str:
        """Hash of all that decides the numbers; devices and precisions round differently."""
        weights = hashlib.sha256()
        for name, tensor in self.network.backbone.state_dict().items():
            weights.update(name.encode())
            weights.update(tensor.detach().cpu().contiguous().numpy().data)
        decisive = {
            "format": _FORMAT,
            "images": self.data.splits[split].fingerprint(),
            "views": self._views(split),
            "preprocess": self.data.preprocess.as_dict(),
            "network": {key: self.network.spec[key] for key in ("backbone", "keep_last_pool", "cam_relu")},
            "weights": weights.hexdigest(),
            "precision": str(self.trainer.precision),
            "device": self.device.type,
        }
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:32]

    def about(self, split: Split) -> str:
        """One line for a person who lists the cache."""
        n, views, *_ = self.shape(split)
        mirrored = ", mirrored too" if views == 2 else ""
        what = f"{self.network.spec['backbone']} at {self.data.preprocess.image_size}²"
        return f"{what}, {self.data.name} {split}, {n:,} images{mirrored}"

    def run(self, split: Split) -> Iterator[np.ndarray]:
        """float32 b×V×…, in the set's order."""
        views, images = self._views(split), self.data.splits[split].images
        batch_size = _BATCH.get(self.device.type, _DEFAULT_BATCH) // views
        for batch in progress(images.split(batch_size), len(images), f"Features of {split}"):
            pictures = batch.to(self.device)
            if views == 2:  # mirrored before the resize, as in training: after it they would round differently
                pictures = torch.cat([pictures, pictures.flip(-1)])
            summary = self._summarize(self.data.preprocess(pictures)).float()
            yield summary.unflatten(0, (views, -1)).transpose(0, 1).cpu().numpy()

    @torch.inference_mode()
    def _summarize(self, inputs: Tensor) -> Tensor:
        with self.trainer.precision_plugin.forward_context():
            return self.network.summarize(self.network.forward_backbone(inputs))

    def _views(self, split: Split) -> int:
        return 2 if split == "train" and self.data.flip > 0 else 1


@rank_zero_only
def _say(line: str, *values: str | float) -> None:
    log.info(line, *values)


def _num_bytes(shapes: _Shapes) -> int:
    return 4 * sum(math.prod(shape) for shape in shapes.values())


def _gigabytes(shapes: _Shapes) -> str:
    return f"{_num_bytes(shapes) / 1e9:.2f} GB"


def _free_memory(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def _free_disk(folder: Path) -> int:
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(there).free
