"""What the sections of a configuration may hold: every setting with its type and range. Text only, nothing heavy.

A section is known by its `_target_`; those of the user's own are left to that target. Tests compare the fields with the
constructors that they describe.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

BACKBONES = ("alexnet", *(f"vgg{depth}{bn}" for depth in (11, 13, 16, 19) for bn in ("", "_bn")))
WEIGHT_ENDINGS = (".safetensors", ".pth", ".pt")


def _field(
    default: Any = MISSING,
    *,
    gt: float | None = None,
    ge: float | None = None,
    lt: float | None = None,
    le: float | None = None,
    among: tuple[str, ...] = (),
    length: int | None = None,
    instead: str = "",
    matches: str = "",
    example: str = "",
) -> Any:
    """A field with its range, the words to choose from, the length of a list, a pattern, or what to give instead."""
    limits = {"gt": gt, "ge": ge, "lt": lt, "le": le, "among": among, "length": length, "instead": instead}
    limits |= {"matches": matches, "example": example}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=limits)
    return dataclasses.field(default=default, metadata=limits)


@dataclass
class Network:
    backbone: str = _field(among=BACKBONES)
    num_classes: int | None = _field(None, ge=2)
    cam_channels: int = _field(10, ge=1)
    cam_relu: bool = False
    keep_last_pool: bool = True
    weights: str | None = None
    frozen: bool = False


@dataclass
class ImageData:
    name: str = ""
    image_size: int = _field(224, ge=32, le=4096)
    mean: list[float] = _field([0.5, 0.5, 0.5], length=3)
    std: list[float] = _field([0.5, 0.5, 0.5], gt=0, length=3)
    flip: float = _field(0.5, ge=0, le=1)
    max_shift: int = _field(0, ge=0, le=32)
    batch_size: int = _field(128, ge=1)
    val_size: int = _field(5000, ge=0)
    split_seed: int = _field(0, ge=0)
    seed: int = _field(0, ge=0)
    placement: str = _field("auto", among=("auto", "device", "host"))
    num_workers: int = _field(0, ge=0)
    test_each_epoch: bool = False


@dataclass
class Cifar10(ImageData):
    root: str = MISSING
    verify: bool = True


@dataclass
class Folder(ImageData):
    root: str = MISSING


@dataclass
class Shapes(ImageData):
    train_size: int = _field(6500, ge=20, le=1_000_000)
    test_size: int = _field(1000, ge=10, le=1_000_000)
    draw_seed: int = _field(0, ge=0)


@dataclass
class AdamW:
    lr: float = _field(gt=0)
    betas: list[float] = _field([0.9, 0.999], ge=0, lt=1, length=2)
    eps: float = _field(1e-8, ge=0)
    weight_decay: float = _field(0.0, ge=0)
    amsgrad: bool = False
    foreach: bool | None = None
    maximize: bool = False
    capturable: bool = False
    differentiable: bool = False
    fused: bool | None = None


@dataclass
class Adam(AdamW):
    decoupled_weight_decay: bool = False


@dataclass
class Sgd:
    lr: float = _field(gt=0)
    momentum: float = _field(0.0, ge=0)
    dampening: float = 0.0
    weight_decay: float = _field(0.0, ge=0)
    nesterov: bool = False
    maximize: bool = False
    foreach: bool | None = None
    differentiable: bool = False
    fused: bool | None = None


@dataclass
class HeatmapLogger:
    every_n_epochs: int = _field(1, ge=1)
    per_class: int = _field(2, ge=1)
    images: str | None = None
    normalization: str = _field("per_image", among=("per_image", "shared", "raw"))
    alpha: float = _field(0.5, ge=0, le=1)


@dataclass
class PointingGame:
    tolerance: int = _field(2, ge=0)


_WANDB = "anonymous checkpoint_name add_file_policy config config_exclude_keys config_include_keys allow_val_change dir"
_WANDB += " entity experiment force fork_from group id job_type log_model monitor_gym name notes offline prefix project"
_WANDB += " reinit resume resume_from save_code settings sync_tensorboard tags tensorboard version"
Wandb = dataclasses.make_dataclass(  # of Lightning's WandbLogger and of wandb.init
    "Wandb",
    [
        *((name, Any, None) for name in _WANDB.split()),
        ("mode", str | None, _field(None, among=("online", "offline", "disabled", "shared"))),
        ("log_checkpoint", bool, False),
    ],
)
_TENSORBOARD = "name version log_graph prefix sub_dir comment purge_step max_queue flush_secs filename_suffix"
TensorBoard = dataclasses.make_dataclass("TensorBoard", [(name, Any, None) for name in _TENSORBOARD.split()])


PRECISIONS = (
    "32-true", "32", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true", "64",
    "transformer-engine", "transformer-engine-float16", "16", "bf16",
)  # fmt: skip


STRATEGIES = (
    "auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false", "ddp_spawn", "ddp_fork",
    "ddp_notebook", "fsdp", "fsdp_cpu_offload", "deepspeed", "deepspeed_stage_1", "deepspeed_stage_2",
    "deepspeed_stage_3", "single_device",
)  # fmt: skip


@dataclass
class Trainer:
    """The arguments of lightning.Trainer (2.6); those without a range are left to Lightning."""

    accelerator: str = _field("auto", among=("auto", "cpu", "gpu", "cuda", "mps", "tpu"))
    strategy: Any = _field("auto", among=STRATEGIES)
    devices: Any = "auto"
    num_nodes: int = _field(1, ge=1)
    precision: Any = _field(None, among=PRECISIONS)
    logger: Any = _field(None, instead="choose with logger=")
    callbacks: Any = _field(None, instead="give +callbacks.NAME._target_=CLASS")
    fast_dev_run: Any = False
    max_epochs: int = _field(150, ge=1)
    min_epochs: int | None = _field(None, ge=0)
    max_steps: int = _field(-1, ge=-1)
    min_steps: int | None = _field(None, ge=0)
    max_time: Any = None
    limit_train_batches: float | None = _field(None, gt=0)
    limit_val_batches: float | None = _field(None, ge=0)
    limit_test_batches: float | None = _field(None, ge=0)
    limit_predict_batches: float | None = _field(None, ge=0)
    overfit_batches: float = _field(0.0, ge=0)
    val_check_interval: float | None = _field(None, gt=0)
    check_val_every_n_epoch: int | None = _field(1, ge=1)
    num_sanity_val_steps: int | None = _field(None, ge=-1)
    log_every_n_steps: int | None = _field(None, ge=0)
    enable_checkpointing: bool | None = None
    enable_progress_bar: bool | None = _field(None, instead="it is shown on a terminal only")
    enable_model_summary: bool | None = None
    accumulate_grad_batches: int = _field(1, ge=1)
    gradient_clip_val: float | None = _field(None, ge=0)
    gradient_clip_algorithm: str | None = _field(None, among=("norm", "value"))
    deterministic: Any = None
    benchmark: bool | None = None
    inference_mode: bool = True
    use_distributed_sampler: bool = True
    profiler: str | None = _field(None, among=("simple", "advanced", "pytorch"))
    detect_anomaly: bool = False
    barebones: bool = False
    plugins: Any = None
    sync_batchnorm: bool = False
    reload_dataloaders_every_n_epochs: int = _field(0, ge=0)
    default_root_dir: Any = _field(None, instead="give hydra.run.dir=")
    enable_autolog_hparams: bool = True
    model_registry: Any = None


SCHEMAS: dict[str, type] = {
    "camlab.models.cam_net.CamNet": Network,
    "camlab.data.cifar10.Cifar10": Cifar10,
    "camlab.data.folder.Folder": Folder,
    "camlab.data.shapes.Shapes": Shapes,
    "camlab.training.callbacks.heatmap_logger.HeatmapLogger": HeatmapLogger,
    "camlab.training.callbacks.pointing_game.PointingGame": PointingGame,
    "camlab.tracking.wandb_logger.WandbLogger": Wandb,
    "camlab.tracking.tensorboard_logger.TensorBoardLogger": TensorBoard,
    "torch.optim.Adam": Adam,
    "torch.optim.AdamW": AdamW,
    "torch.optim.SGD": Sgd,
    "lightning.Trainer": Trainer,
}


@dataclass
class Root:
    data: Any
    trainer: Any
    paths: Any
    seed: int = _field(ge=0, le=2**32 - 1)
    test_each_epoch: bool = _field()


@dataclass
class Train(Root):
    arch: Any = _field()
    optimizer: Any = _field()
    scheduler: Any = None
    logger: Any = None
    callbacks: Any = None
    mode: str = _field()
    sweep: str | None = None
    resume: str | None = None
    force: bool = False
    checkpoint_every: Any = _field(None, matches=r"[1-9]\d*|\d+(\.\d+)? ?min", example="500 (steps) or 10min")
    cache: bool = True
    compile: bool = False
    deterministic: bool = False
    run_name: str = _field()


@dataclass
class Evaluate(Root):
    checkpoint: str = _field()
    split: str = _field(among=("train", "val", "test"))


@dataclass
class Explain:
    images: str = _field()
    network: Any = _field()
    paths: Any = _field()
    checkpoint: str | None = None
    methods: Any = "auto"
    layer: Any = None
    target: Any = "auto"
    top_k: int = _field(1, ge=1, le=100)
    normalize: str = _field("per_image", among=("per_image", "shared", "raw"))
    counterfactual: bool = False
    boxes: bool = True
    alpha: float = _field(0.5, ge=0, le=1)
    batch_size: int = _field(32, ge=1)
    device: str = _field("auto", among=("auto", "cpu", "gpu", "cuda", "mps"))
    out: str = _field()


@dataclass
class NamedNetwork:
    name: str | None = None
    weights: str | None = "DEFAULT"


@dataclass
class Cache:
    paths: Any
    action: str = _field(among=("list", "clear"))


@dataclass
class Paths:
    data: str = ""
    outputs: str = ""
    cache: str = ""


ENTRIES: dict[str, type] = {"train": Train, "evaluate": Evaluate, "explain": Explain, "cache": Cache}
