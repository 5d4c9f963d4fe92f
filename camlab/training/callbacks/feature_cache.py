"""Cache the features of a frozen backbone: each image passes the backbone once, and then only the head is trained."""

import functools
import hashlib
import json
import logging
import math
import time
from collections.abc import Iterator
from typing import Any

import lightning as L
import numpy as np
import psutil
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from camlab.data.module import ImageData, Split
from camlab.errors import UserError
from camlab.models.network import Network
from camlab.storage.array_store import feature_store
from camlab.storage.cache_folder import free_disk, size_text
from camlab.storage.progress import progress
from camlab.training.classifier import Classifier

log = logging.getLogger(__name__)

_BATCH = {"cpu": 32}  # images that pass the backbone together: few, so that activations stay in a CPU's caches
_DEFAULT_BATCH = 512
_Shapes = dict[Split, tuple[int, ...]]
_FORMAT = 1  # bump to invalidate existing entries
_USED_KEY = "camlab_cached_features"  # key in checkpoints


class FeatureCache(L.Callback):
    """Replaces the images of a run in mode `frozen` with the input of its head (`Network.head_statistic`).

    An image and its mirror image pass the backbone once, when training begins. The results are kept in the data module
    and, for later runs, on disk under a hash of the pictures, the weights and the preprocessing. Batches, flips and
    checkpoints are those of a run without the cache; weights and metrics are equal except for rounding. Features that
    are larger than memory stay on disk, and each batch reads its own.

    Whether the cache is used is decided when a run begins, and recorded in its checkpoints, because a run that resumed
    with the other choice would not give the same result bit for bit. If the cache is not used, a log line says why.

    Args:
        folder: Folder `paths.cache`; the arrays are in `features/` there.
    """

    def __init__(self, folder: str) -> None:
        self.store = feature_store(folder)
        self._used: bool | None = None  # None until it is decided

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[_USED_KEY] = self._used

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._used = checkpoint.get(_USED_KEY)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data: ImageData = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(pl_module, Classifier)
        if not pl_module.network.frozen or data.head_statistics:
            return
        one_pass = BackbonePass(trainer, pl_module.network, data)
        shapes = {split: one_pass.shape(split) for split in one_pass.splits}
        missing = {split: shapes[split] for split in shapes if one_pass.key(split) not in self.store}
        if self._decide(trainer, data, shapes, missing):
            self._fill(one_pass, shapes, missing)

    def _fill(self, one_pass: "BackbonePass", shapes: _Shapes, missing: _Shapes) -> None:
        """Hand all features to the data module; compute those that are missing."""
        passing = sum(shape[0] * shape[1] for shape in missing.values())
        if passing:
            where = f"Features: {_size(missing)} in {self.store.folder}"
            fixed = one_pass.data.training_views.fixed
            mirrored = 0 if fixed is not None else sum(shape[0] * (shape[1] - 1) for shape in missing.values())
            images = f"{passing - mirrored:,} images{f' and {mirrored:,} mirror images' if mirrored else ''}"
            _say("Frozen backbone: %s pass it once, then only the head trains. %s.", images, where)
            if fixed is not None and "train" in missing:
                cost = f"{fixed} times the first pass and the space of one view ({_size({'train': shapes['train']})})"
                _say("data.augment_views=%d: the training images take %s.", fixed, cost)
        began, fits = time.perf_counter(), _free_memory(one_pass.device) >= 2 * _num_bytes(shapes)
        if not fits:
            _say("Features take %s, more than half of the free memory: they are read from disk.", _size(shapes))
        for split, shape in shapes.items():
            what = one_pass.key(split), shape, functools.partial(one_pass.run, split), one_pass.about(split)
            if fits:
                one_pass.use(split, torch.from_numpy(self.store.get(*what)))
            else:
                one_pass.data.use_cached_features(split, self.store.rows(*what))
        if passing:
            _say("Features are there after %.1f s.", time.perf_counter() - began)

    def _decide(self, trainer: L.Trainer, data: ImageData, shapes: _Shapes, missing: _Shapes) -> bool:
        """Decide whether to use cached features. A resumed run keeps its decision, and all ranks decide alike.

        Raises:
            UserError: The run began with cached features, but there is no room for them now.
        """
        if self._used is False:
            _say("Features are not cached, as when this run began. The whole network runs in every epoch.")
            return False
        goes_on, contradiction = self._used is True, _contradiction(trainer, data)
        lack = self._no_room(missing, spare=1 if goes_on else 2)
        waste = None if goes_on else _waste(trainer, shapes, missing)
        somewhere = functools.partial(trainer.strategy.reduce_boolean_decision, all=False)  # on any rank
        if somewhere(lack is not None) and goes_on and not contradiction:
            raise UserError(
                f"This run began with cached features, but now {lack or 'another process has no room for them'}.",
                "Make room, then repeat the command. With cache=false the run continues without them, but its result"
                " will not be the same bit for bit.",
            )
        obstacle = contradiction or lack or waste
        self._used = not somewhere(obstacle is not None)
        if not self._used:
            reason = obstacle or "another process has no room for them"
            _say("Features are not cached: %s. The whole network runs in every epoch.", reason)
        return self._used

    def _no_room(self, missing: _Shapes, spare: int) -> str | None:
        """The reason, in words, if the disk cannot hold `spare` times the missing features; None if it can."""
        if (disk := free_disk(self.store.folder)) >= spare * _num_bytes(missing):
            return None
        much = "more than half of" if spare > 1 else "more than"
        return (
            f"they take {_size(missing)}, {much} the free disk space at {self.store.folder}"
            f" ({size_text(disk)}; choose another folder with paths.cache=FOLDER)"
        )


class BackbonePass:
    """Runs the backbone once over all images of a split, and computes the hash of all that the results depend on."""

    def __init__(self, trainer: L.Trainer, network: Network, data: ImageData) -> None:
        self.trainer, self.network, self.data = trainer, network, data
        self.device = trainer.strategy.root_device
        side = data.preprocess.image_size
        self.statistic_shape = tuple(self._head_statistic(torch.zeros(1, 3, side, side, device=self.device)).shape[1:])

    @property
    def splits(self) -> list[Split]:
        """Splits whose features are cached: those that the run uses, but a test with masks needs the images instead."""
        test: tuple[Split, ...] = ("test",) if self.data.splits["test"].masks is None else ()
        return list(dict.fromkeys(("train", *self.data.validation_splits, *test)))

    def shape(self, split: Split) -> tuple[int, ...]:
        """Shape of a split's features, N×V×…: images, views of each, and one statistic."""
        return len(self.data.splits[split]), self._views(split), *self.statistic_shape

    def key(self, split: Split) -> str:
        """Hash of everything that the features depend on, including device and precision, which affect rounding."""
        decisive = {
            "format": _FORMAT,
            "images": self.data.split_fingerprint(split),
            "views": self._views(split),
            **self._augmentation(split),
            "preprocess": self.data.preprocess.as_dict(),
            "network": self.network.statistic_spec,
            "weights": self._weights_hash,
            "precision": str(self.trainer.precision),
            "device": self.device.type,
        }
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:32]

    def about(self, split: Split) -> str:
        """One line that describes a split's features to a person who lists the cache."""
        n, views, *_ = self.shape(split)
        mirrored = f", {views} augmented views" if self._augmentation(split) else ", mirrored too" if views == 2 else ""
        what = f"{self.network.spec['backbone']} at {self.data.preprocess.image_size}²"
        return f"{what}, {self.data.name} {split}, {n:,} images{mirrored}"

    def run(self, split: Split) -> Iterator[np.ndarray]:
        """Yield head statistics, float32 b×V×…, in the order of the split's images."""
        views, images = self._views(split), self.data.splits[split]
        batch_size = max(1, _BATCH.get(self.device.type, _DEFAULT_BATCH) // views)
        indices = iter(torch.arange(len(images), device=self.device).split(batch_size))
        for batch in progress(images.batches(batch_size), len(images), f"Features of {split}"):
            pictures, index = batch.images.to(self.device), next(indices)
            if split == "train":  # augmented before the resize, as in training: after it they would round differently
                pictures = self.data.training_views.all(pictures, index, len(images))
            statistic = self._head_statistic(self.data.preprocess(pictures)).float()
            yield statistic.unflatten(0, (views, -1)).transpose(0, 1).cpu().numpy()

    def use(self, split: Split, head_statistics: Tensor) -> None:
        """Hand a split's features, float32 N×V×…, to the data module, in the run's precision and on its device."""
        converted: Tensor = self.trainer.precision_plugin.convert_input(head_statistics)
        self.data.use_cached_features(split, converted.to(self.device))

    @torch.inference_mode()
    def _head_statistic(self, inputs: Tensor) -> Tensor:
        inputs = self.trainer.precision_plugin.convert_input(inputs)
        with self.trainer.precision_plugin.forward_context():
            return self.network.head_statistic(self.network.forward_backbone(inputs))

    @functools.cached_property
    def _weights_hash(self) -> str:
        weights = hashlib.sha256()
        for name, tensor in self.network.backbone.state_dict().items():
            weights.update(name.encode())
            weights.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().data)
        return weights.hexdigest()

    def _views(self, split: Split) -> int:
        return (self.data.training_views.count or 1) if split == "train" else 1

    def _augmentation(self, split: Split) -> dict[str, Any]:
        """What a split's features depend on if they are of augmented views."""
        views = self.data.training_views
        return (
            {} if split != "train" or views.fixed is None else {"augment": views.augmentation.steps, "seed": views.seed}
        )


def _contradiction(trainer: L.Trainer, data: ImageData) -> str | None:
    """The reason, in words, why features cannot be cached with this run's settings; None if they can."""
    if (views := data.training_views).count is None:
        pixels = views.augmentation.steps.get("shift", {}).get("pixels", 0)
        setting = "data.augment" if views.is_chosen else f"data.max_shift={pixels:.0f}"
        return f"{setting} changes every picture in every epoch; data.augment_views=4 would keep 4 views of each"
    if trainer.precision == "64-true":
        return "they are kept in 32 bits, and trainer.precision=64-true asks for more"
    return None


def _waste(trainer: L.Trainer, shapes: _Shapes, missing: _Shapes) -> str | None:
    """The reason, in words, why caching features would take longer than it saves; None if it would not."""
    views = shapes["train"][1]
    if missing and trainer.max_epochs is not None and 0 < trainer.max_epochs < views:
        return f"computing them takes longer than training with trainer.max_epochs={trainer.max_epochs}"
    return None


@rank_zero_only
def _say(line: str, *values: str | float) -> None:
    log.info(line, *values)


def _num_bytes(shapes: _Shapes) -> int:
    return 4 * sum(math.prod(shape) for shape in shapes.values())


def _size(shapes: _Shapes) -> str:
    return size_text(_num_bytes(shapes))


def _free_memory(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
