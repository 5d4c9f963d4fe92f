"""What a configuration may say, decided from its text: types, ranges, unknown keys. Imports neither torch nor Lightning.

A section is known by its `_target_`; sections with a target of the user's own are left to that target. Tests compare the
fields below with the constructors that they describe.
"""

import dataclasses
import difflib
import hashlib
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from camlab.errors import UserError

BACKBONES = ("alexnet", *(f"vgg{depth}{bn}" for depth in (11, 13, 16, 19) for bn in ("", "_bn")))
WEIGHT_ENDINGS = (".safetensors", ".pth", ".pt")


def _field(default: Any = MISSING, *, gt: float | None = None, ge: float | None = None, le: float | None = None, among: tuple[str, ...] = ()) -> Any:
    """A field with its range: greater than, at least, at most, or one of some words."""
    limits = {"gt": gt, "ge": ge, "le": le, "among": among}
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
    mean: list[float] = _field([0.5])
    std: list[float] = _field([0.5], gt=0)
    flip: float = _field(0.5, ge=0, le=1)
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
    train_size: int = _field(6500, ge=20)
    test_size: int = _field(1000, ge=10)
    draw_seed: int = _field(0, ge=0)


@dataclass
class Adam:
    lr: float = _field(gt=0)
    betas: list[float] = _field([0.9, 0.999], ge=0, le=1)
    eps: float = _field(1e-8, ge=0)
    weight_decay: float = _field(0.0, ge=0)
    amsgrad: bool = False
    foreach: bool | None = None
    maximize: bool = False
    capturable: bool = False
    differentiable: bool = False
    fused: bool | None = None
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


PRECISIONS = (
    "32-true", "32", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true", "64",
    "transformer-engine", "transformer-engine-float16", "16", "bf16",
)  # fmt: skip


@dataclass
class Trainer:
    """The arguments of lightning.Trainer (2.6); those without a range are left to Lightning."""

    accelerator: str = _field("auto", among=("auto", "cpu", "gpu", "cuda", "mps", "tpu"))
    strategy: Any = "auto"
    devices: Any = "auto"
    num_nodes: int = _field(1, ge=1)
    precision: Any = _field(None, among=PRECISIONS)
    logger: Any = None
    callbacks: Any = None
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
    enable_progress_bar: bool | None = None
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
    default_root_dir: Any = None
    enable_autolog_hparams: bool = True
    model_registry: Any = None


SCHEMAS: dict[str, type] = {
    "camlab.models.CamNet": Network,
    "camlab.data.Cifar10": Cifar10,
    "camlab.data.Folder": Folder,
    "camlab.data.Shapes": Shapes,
    "camlab.callbacks.HeatmapLogger": HeatmapLogger,
    "camlab.callbacks.PointingGame": PointingGame,
    "torch.optim.Adam": Adam,
    "torch.optim.AdamW": Adam,
    "torch.optim.SGD": Sgd,
    "lightning.Trainer": Trainer,
}

_ROOT_KEYS = {
    "train": "arch data trainer logger callbacks mode seed resume test_each_epoch optimizer scheduler paths run_name",
    "evaluate": "data trainer checkpoint split seed test_each_epoch paths",
}
_SPLITS = ("train", "val", "test")


class CheckBeforeRun(Callback):
    """Refuses a bad configuration before Hydra makes a folder for it."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            plain = config.copy()
            OmegaConf.set_struct(plain, False)
            hydra = plain.pop("hydra")
            check(plain, hydra.job.config_name)
        except UserError as error:
            # Hydra turns exceptions of callbacks into warnings, but not this one; a single run ends here anyway.
            print(error, file=sys.stderr)
            sys.exit(2)


def check(config: DictConfig, entry: str) -> None:
    """Refuse what cannot be meant.

    Args:
        config: composed, without Hydra's own part.
        entry: `train` or `evaluate`.

    Raises:
        UserError: naming the key, what was given and what can be.
    """
    _check_known("", [str(key) for key in config], _ROOT_KEYS[entry].split())
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise UserError(f"{missing[0]} is needed: give {missing[0]}=…")
    try:
        plain = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(_first_line(error)) from error
    assert isinstance(plain, dict)
    for path, section in _sections(plain):
        if schema := SCHEMAS.get(section["_target_"]):
            _check_section(path, section, schema)
    _check_root(plain)


def config_hash(config: DictConfig) -> str:
    """16 hex digits of what decides a run's outcome: all but where things lie, who watches and how it resumes."""
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    decisive = {key: value for key, value in plain.items() if key not in ("paths", "logger", "callbacks", "resume", "run_name")}
    decisive["data"] = {k: v for k, v in plain["data"].items() if k not in ("root", "placement", "num_workers")}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _sections(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        if isinstance(node.get("_target_"), str):
            yield path, node
        for key, child in node.items():
            yield from _sections(child, f"{path}.{key}" if path else str(key))


def _check_section(path: str, section: dict[str, Any], schema: type) -> None:
    values = {key: value for key, value in section.items() if key not in ("_target_", "_partial_", "_convert_")}
    fields = {field.name: field for field in dataclasses.fields(schema)}
    _check_known(path, list(values), list(fields))
    for key, value in values.items():
        name = f"{path}.{key}"
        try:
            typed = OmegaConf.merge(OmegaConf.structured(schema), {key: value})[key]
        except OmegaConfBaseException as error:
            raise UserError(f"{name}={value}: {_first_line(error)}.") from error
        for item in typed if OmegaConf.is_list(typed) else [typed]:
            _check_range(name, item, fields[key].metadata)


def _check_range(name: str, value: Any, limits: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{name}={value}: must be finite.")
    if value is None or not limits:
        return
    if limits["among"] and str(value) not in limits["among"]:
        raise UserError(f"{name}={value}: {_did_you_mean(str(value), limits['among'])}choose one of {', '.join(limits['among'])}.")
    for word, limit, ok in (
        ("greater than", limits["gt"], lambda v, bound: v > bound),
        ("at least", limits["ge"], lambda v, bound: v >= bound),
        ("at most", limits["le"], lambda v, bound: v <= bound),
    ):
        if limit is not None and not ok(value, limit):
            raise UserError(f"{name}={value}: must be {word} {limit:g}.")


def _check_root(plain: dict[str, Any]) -> None:
    seed = plain["seed"]
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise UserError(f"seed={seed}: must be a whole number from 0 to {2**32 - 1}.")
    if not isinstance(plain["test_each_epoch"], bool):
        raise UserError(f"test_each_epoch={plain['test_each_epoch']}: must be true or false.")
    if (split := plain.get("split", "test")) not in _SPLITS:
        raise UserError(f"split={split}: choose one of {', '.join(_SPLITS)}.")
    for section in ("arch", "data", "trainer", "optimizer"):
        if section in plain and not (isinstance(plain[section], dict) and plain[section].get("_target_")):
            raise UserError(f"{section}={plain[section]}: nothing to build; choose an option of {section} (see --help).")
    weights = (plain.get("arch") or {}).get("weights")
    if weights and weights != "imagenet":
        path = Path(weights).expanduser()
        if path.suffix not in WEIGHT_ENDINGS or not path.is_file():
            wrong = "no such file" if path.suffix in WEIGHT_ENDINGS else f"ending is not {', '.join(WEIGHT_ENDINGS)}"
            raise UserError(f"arch.weights={weights}: {wrong}. Give imagenet, a weights file, or null for none.")
    for key in ("mean", "std"):
        if len(plain["data"].get(key, [0, 0, 0])) != 3:
            raise UserError(f"data.{key}={plain['data'][key]}: needs three numbers, one per channel.")


def _check_known(path: str, given: list[str], known: list[str]) -> None:
    for key in given:
        if key not in known:
            prefix = f"{path}." if path else ""
            hint = _did_you_mean(key, known, prefix) or f"known are {', '.join(known)}."
            raise UserError(f"{prefix}{key}: no such setting; {hint}")


def _did_you_mean(word: str, known: Any, prefix: str = "") -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {prefix}{near[0]}? " if near else ""


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
