"""Schemas of the sections that name a class: names, types and ranges of the settings. Imports nothing heavy.

The schemas contain no defaults; these are set in `conf/`. A key is optional unless it is `Required`. The `_target_` of
a section selects its schema; a section with a class of the user's own is not checked. Tests compare the keys of the
schemas with the constructors of the classes.
"""

from typing import Annotated, Any, Required

from pydantic import AfterValidator, BeforeValidator, Field
from typing_extensions import TypedDict  # pydantic needs this version before Python 3.12

from camlab.command_line.fields import (
    Augment,
    Backbone,
    Colormap,
    Count,
    Name,
    Natural,
    NotNegative,
    Positive,
    Scaling,
    Seed,
    Share,
    Words,
    as_list,
    section,
    shares_of_splits,
)
from camlab.command_line.trainer_section import Trainer
from camlab.models.backbones import LARGEST_IMAGE_SIZE
from camlab.runs.watchers import HEAT_SCORES

WEIGHT_ENDINGS = (".safetensors", ".pth", ".pt")

Shares = Annotated[list[NotNegative], Field(min_length=3, max_length=3), AfterValidator(shares_of_splits)]
ImageSize = Annotated[int, Field(ge=1, le=LARGEST_IMAGE_SIZE)]


@section
class Network(TypedDict, total=False):
    backbone: Required[Backbone]
    num_classes: Annotated[int, Field(ge=2)] | None
    weights: str | None
    frozen: bool


@section
class CamNet(Network, total=False):
    cam_conv: bool
    cam_channels: Count
    cam_relu: bool
    keep_last_pool: bool


@section
class ClassifierNet(Network, total=False):
    image_size: ImageSize


@section
class ImageData(TypedDict, total=False):
    name: str
    image_size: ImageSize
    mean: Annotated[list[float], Field(min_length=3, max_length=3)]
    std: Annotated[list[Positive], Field(min_length=3, max_length=3)]
    flip: Share
    max_shift: Annotated[int, Field(ge=0, le=32)]
    augment: Augment
    augment_views: Annotated[int, Field(ge=1, le=100)] | None
    batch_size: Count
    val_size: Natural
    split_seed: Seed
    seed: Seed
    placement: Annotated[str, Words("auto", "device", "host")]
    test_each_epoch: bool
    balance: Annotated[str, Words("none", "weights", "sampling")]
    shortcut: Annotated[str, Words("patch", "stripe", "tint")] | None
    shortcut_classes: Annotated[list[str | Natural], Field(min_length=1), BeforeValidator(as_list)] | None
    shortcut_strength: Share


@section
class Cifar10(ImageData, total=False):
    root: Required[str]
    verify: bool
    download: bool


@section
class OwnPictures(ImageData, total=False):
    split: Shares
    cache: str | None
    store_size: ImageSize | None
    skip_broken: bool
    annotations: str | None


@section
class Folder(OwnPictures, total=False):
    root: Required[str]
    nested: bool


@section
class Table(OwnPictures, total=False):
    file: Required[str]
    root: str | None
    path_column: str
    label_column: str
    split_column: str | None
    mask_column: str | None
    box_column: str | None
    multi_label: bool


@section
class HuggingFace(OwnPictures, total=False):
    path: Required[str]
    config: str | None
    image_column: str | None
    label_column: str | None
    mask_column: str | None
    download: bool


@section
class Shapes(ImageData, total=False):
    train_size: Annotated[int, Field(ge=20, le=1_000_000)]
    test_size: Annotated[int, Field(ge=10, le=1_000_000)]
    draw_seed: Seed


@section
class AdamW(TypedDict, total=False):
    lr: Required[Positive]
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)]
    eps: NotNegative
    weight_decay: NotNegative
    amsgrad: bool
    foreach: bool | None
    maximize: bool
    capturable: bool
    differentiable: bool
    fused: bool | None


@section
class Adam(AdamW, total=False):
    decoupled_weight_decay: bool


@section
class Sgd(TypedDict, total=False):
    lr: Required[Positive]
    momentum: NotNegative
    dampening: float
    weight_decay: NotNegative
    nesterov: bool
    maximize: bool
    foreach: bool | None
    differentiable: bool
    fused: bool | None


@section
class HeatmapLogger(TypedDict, total=False):
    every_n_epochs: Count
    per_class: Count
    images: str | None
    normalize: Scaling
    colormap: Colormap
    alpha: Share


@section
class ScoreLogger(TypedDict, total=False):
    every_n_epochs: Count
    num_images: Count
    srg_images: Count
    scores: Annotated[list[Annotated[str, Words(*HEAT_SCORES)]], Field(min_length=1), BeforeValidator(as_list)] | None
    tolerance: Natural


@section
class FrozenFirst(TypedDict, total=False):
    epochs: Count
    lr_factor: Positive


_WANDB = "anonymous checkpoint_name add_file_policy config config_exclude_keys config_include_keys allow_val_change dir"
_WANDB += " entity experiment force fork_from group id job_type log_model monitor_gym name notes offline prefix project"
_WANDB += " reinit resume resume_from save_code settings sync_tensorboard tags tensorboard version"
_TENSORBOARD = "log_graph prefix comment purge_step max_queue flush_secs"
_TENSORBOARD += " filename_suffix"


# mypy cannot read computed names.
_WandbArguments = TypedDict("_WandbArguments", dict.fromkeys(_WANDB.split(), Any), total=False)  # type: ignore[misc]
_TensorBoardArguments = TypedDict("_TensorBoardArguments", dict.fromkeys(_TENSORBOARD.split(), Any), total=False)  # type: ignore[misc]


@section
class TensorBoard(_TensorBoardArguments, total=False):
    """Arguments of Lightning's TensorBoardLogger and of torch's SummaryWriter."""

    name: Name | None
    version: Name | Annotated[str, Words("")] | int | None
    sub_dir: Name | None


@section
class Wandb(_WandbArguments, total=False):
    """Arguments of Lightning's WandbLogger, of wandb.init, and of camlab's own logger."""

    mode: Annotated[str, Words("online", "offline", "disabled", "shared")] | None
    log_checkpoint: bool
    viewer: bool


@section
class MLFlow(TypedDict, total=False):
    """Arguments of camlab's logger for MLflow."""

    save_dir: Any
    folder: str
    tracking_uri: str | None
    experiment_name: Name
    run_name: Name | None
    tags: dict[str, Any] | None


@section
class Aim(TypedDict, total=False):
    """Arguments of camlab's logger for Aim."""

    save_dir: Any
    folder: str
    experiment: Name
    run_name: Name | None


SECTIONS: dict[str, Any] = {
    "camlab.models.cam_net.CamNet": CamNet,
    "camlab.models.classifier_net.ClassifierNet": ClassifierNet,
    "camlab.data.cifar10.Cifar10": Cifar10,
    "camlab.data.folder.Folder": Folder,
    "camlab.data.table.Table": Table,
    "camlab.data.huggingface.HuggingFace": HuggingFace,
    "camlab.data.shapes.Shapes": Shapes,
    "camlab.training.callbacks.heatmap_logger.HeatmapLogger": HeatmapLogger,
    "camlab.training.callbacks.score_logger.ScoreLogger": ScoreLogger,
    "camlab.training.callbacks.frozen_first.FrozenFirst": FrozenFirst,
    "camlab.tracking.aim_logger.AimLogger": Aim,
    "camlab.tracking.mlflow_logger.MLFlowLogger": MLFlow,
    "camlab.tracking.wandb_logger.WandbLogger": Wandb,
    "camlab.tracking.tensorboard_logger.TensorBoardLogger": TensorBoard,
    "torch.optim.Adam": Adam,
    "torch.optim.AdamW": AdamW,
    "torch.optim.SGD": Sgd,
    "lightning.Trainer": Trainer,
}
