"""Heatmaps of camlab's own runs: the pictures are taken from the classes of the data."""

from pathlib import Path, PurePosixPath

import lightning as L
import torch

from camlab.attribution.batch_explainer import BatchExplainer
from camlab.data.folder import read_pictures
from camlab.data.module import ImageData
from camlab.errors import UserError
from camlab.maps import Normalization
from camlab.models.cam_net import CamNet
from camlab.storage.files import user_path
from camlab.storage.pictures import picture_files
from camlab.tracking.wandb_logger import IMAGES_PER_KEY
from camlab.training.callbacks.heatmap_callback import HeatmapCallback
from camlab.training.probe_set import ProbeSet


class HeatmapLogger(HeatmapCallback):
    """Draws CAM and Grad-CAM of a fixed probe set of the run's data, as `HeatmapCallback` does.

    Args:
        every_n_epochs: Number of epochs between drawings. The last epoch is always drawn.
        per_class: Number of pictures of each class in the probe set. They are taken from the validation split or, if
            there is none, from the training split.
        images: A folder of pictures to use as the probe set instead; they have no labels.
        normalize: `per_image`, `shared` or `raw`.
        alpha: The heatmap's share of an overlay.
        colormap: One of `camlab.drawing.colormaps.COLORMAPS`.

    Raises:
        UserError: At fit start, if `images` has no pictures or a damaged one.
    """

    def __init__(
        self,
        every_n_epochs: int = 1,
        per_class: int = 2,
        images: str | None = None,
        normalize: Normalization = "per_image",
        alpha: float = 0.5,
        colormap: str = "jet",
    ) -> None:
        super().__init__(
            model="network",
            methods=None,
            every_n_epochs=every_n_epochs,
            normalize=normalize,
            alpha=alpha,
            colormap=colormap,
        )
        self.per_class = per_class
        self.place = images
        self._chosen: ProbeSet | None = None

    @property
    def needs_batch(self) -> bool:
        return False

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_fit_start(trainer, pl_module)
        data: ImageData = trainer.datamodule  # type: ignore[attr-defined]
        self.multi_label = data.has_several_labels or None
        self._chosen = self._of_folder(data, self.place) if self.place is not None else self._of_classes(data)

    def choose(self, trainer: L.Trainer, pl_module: L.LightningModule) -> ProbeSet | None:
        return self._chosen

    def run_folder(self, trainer: L.Trainer) -> Path:
        return Path(trainer.default_root_dir)

    def doubts(self, explainer: BatchExplainer) -> list[str]:
        """None for a CamNet, as `camlab.train` has named the settings that enlarge its maps."""
        return [] if isinstance(explainer.network, CamNet) else explainer.doubts

    def _of_folder(self, data: ImageData, place: str) -> ProbeSet:
        if not (files := picture_files(user_path(place, "callbacks.heatmaps.images"))):
            raise UserError(f"callbacks.heatmaps.images={place}: no pictures there.")
        files = files[:IMAGES_PER_KEY]
        pictures = read_pictures(files, max(data.preprocess.image_size, 64))
        names = [file.name for file in files]
        return ProbeSet(data.preprocess(pictures), pictures, names, class_names=data.class_names)

    def _of_classes(self, data: ImageData) -> ProbeSet:
        """The first pictures of each class."""
        chosen = data.splits.get("val", data.splits["train"])
        classes = range(len(data.class_names))
        of_class = chosen.labels.T > 0 if data.has_several_labels else [chosen.labels == label for label in classes]
        first = torch.cat([torch.nonzero(own).flatten()[: self.per_class] for own in of_class]).tolist()
        numbers = list(dict.fromkeys(first))[:IMAGES_PER_KEY]
        some, names = chosen.subset(torch.tensor(numbers)), chosen.names
        shown = [PurePosixPath(names[i]).name if names else "" for i in numbers]
        return ProbeSet(data.preprocess(some.images), some.images, shown, some.labels, data.class_names, some.masks)
