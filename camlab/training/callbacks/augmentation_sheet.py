"""Draw what augmentation makes of some training pictures, at the start of a run."""

import logging
from pathlib import Path

import lightning as L
import numpy as np
import torch
from torch import Tensor

from camlab.data.augment_steps import describe_steps
from camlab.data.image_set import Pictures
from camlab.data.module import ImageData
from camlab.drawing.augmentation_sheet import View, augmentation_sheet
from camlab.drawing.render import write_image
from camlab.errors import cut, plain
from camlab.runs.run_folder import AUGMENTATION

log = logging.getLogger(__name__)

_PICTURES, _VIEWS = 6, 6


class AugmentationSheet(L.Callback):
    """Writes `augmentation.png` into a run's folder if `data.augment` is set to anything but `none`.

    The sheet has a row for each of six training pictures of different classes, as far as there are as many, with what
    the first six epochs see of each; where the data have masks, objects are outlined. Only the first process of a
    distributed run writes it. If it cannot be written, one line says so, and training goes on.

    Args:
        folder: Folder of the run.
        augment: The setting, as the sheet quotes it.
    """

    def __init__(self, folder: Path, augment: str) -> None:
        self.file, self.augment = folder / AUGMENTATION, augment

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data: ImageData = trainer.datamodule  # type: ignore[attr-defined]
        views = data.training_views
        if not trainer.is_global_zero or not views.is_chosen or not views.augmentation.steps:
            return
        steps = describe_steps(views.augmentation.steps)
        heading = cut(plain(f"{data.name}: data.augment={self.augment}"), 120)
        try:
            write_image(self.file, augmentation_sheet(heading, f"Steps: {steps}", _rows(data)))
        except OSError as error:
            log.warning("%s cannot be written (%s). Training goes on.", plain(str(self.file)), error.strerror)
        else:
            log.info("What data.augment makes of the training pictures: %s", plain(str(self.file)))


def _rows(data: ImageData) -> list[list[View]]:
    train, views = data.splits["train"], data.training_views
    index = _of_different_classes(train, _PICTURES)
    class_names, labels = [cut(name, 20) for name in train.class_names], train.labels.cpu()
    if labels.dim() > 1:
        names = [
            cut(", ".join(class_names[i] for i in own.nonzero()[:, 0].tolist()), 20) or "no label" for own in labels
        ]
    else:
        names = [class_names[label] for label in labels.tolist()]
    chosen = train.subset(index)
    rows = [
        [View(_pixels(picture), "Picture", names[i], _mask(chosen.masks, at))]
        for at, (picture, i) in enumerate(zip(chosen.images, index.tolist(), strict=True))
    ]
    kind = "epoch" if views.fixed is None else "view"
    for epoch in range(min(_VIEWS, views.fixed or _VIEWS)):
        seen, masks, mixed = views.examples(train, index, epoch, data.order(epoch))
        for at, (row, image, (partner, share)) in enumerate(zip(rows, seen, mixed, strict=True)):
            others = f"{100 * (1 - share):.0f} %"
            other = "" if others == "0 %" else f"with {others} {names[partner]}"
            row.append(View(_pixels(image), f"{kind} {epoch + 1}", other, _mask(masks, at)))
    return rows


def _of_different_classes(train: Pictures, count: int) -> Tensor:
    """Indices of the first pictures of each class, then of the second ones, and so on."""
    labels, classes = train.labels.cpu(), range(len(train.class_names))
    has = [labels[:, label] > 0 if labels.dim() > 1 else labels == label for label in classes]
    of_class = [torch.nonzero(own).flatten()[:count] for own in has]
    ranked = sorted((rank, int(i)) for own in of_class for rank, i in enumerate(own))
    return torch.tensor([*dict.fromkeys(i for _, i in ranked)][:count], dtype=torch.int64)


def _mask(masks: Tensor | None, at: int) -> np.ndarray | None:
    return None if masks is None else masks[at].cpu().numpy()


def _pixels(image: Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).cpu().numpy()
