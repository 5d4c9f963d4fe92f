"""What a configuration may say, decided from its text: types, ranges, unknown keys. Imports no torch, no Lightning.

A section is known by its `_target_`; sections with a target of the user's own are left to that target. Tests compare
the fields below with the constructors that they describe.
"""

import dataclasses
import difflib
import hashlib
import json
import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from hydra.experimental.callback import Callback
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from camlab import runs
from camlab.errors import UserError

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
) -> Any:
    """A field with its range, the words to choose from, the length of a list, or what to give instead of it."""
    limits = {"gt": gt, "ge": ge, "lt": lt, "le": le, "among": among, "length": length, "instead": instead}
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
    ],
)
_TENSORBOARD = "name version log_graph default_hp_metric prefix sub_dir comment purge_step max_queue flush_secs filename_suffix"
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
    "camlab.models.CamNet": Network,
    "camlab.data.Cifar10": Cifar10,
    "camlab.data.Folder": Folder,
    "camlab.data.Shapes": Shapes,
    "camlab.callbacks.HeatmapLogger": HeatmapLogger,
    "camlab.callbacks.PointingGame": PointingGame,
    "camlab.tracking.WandbLogger": Wandb,
    "lightning.pytorch.loggers.TensorBoardLogger": TensorBoard,
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
    resume: str | None = None
    run_name: str = _field()


@dataclass
class Evaluate(Root):
    checkpoint: str = _field()
    split: str = _field(among=("train", "val", "test"))


@dataclass
class Paths:
    data: str
    outputs: str


ENTRIES: dict[str, type] = {"train": Train, "evaluate": Evaluate}
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "null"}


class CheckBeforeRun(Callback):
    """Refuses a bad configuration before Hydra makes a folder for it, or writes into another run's.

    Args:
        entry: `train` or `evaluate`.
    """

    def __init__(self, entry: str) -> None:
        self.entry = entry

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        plain = config.copy()
        OmegaConf.set_struct(plain, False)
        plain.pop("hydra")
        try:
            check(plain, self.entry)
            if self.entry == "train" and plain.resume in (None, "auto"):
                runs.check_same_run(Path(config.hydra.run.dir), config_hash(plain))
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
    try:
        plain: Any = OmegaConf.to_container(config, resolve=True)
        missing = sorted(OmegaConf.missing_keys(config))
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: {str(error).splitlines()[0]}.") from error
    if missing:
        raise UserError(f"{missing[0]} is needed: give {missing[0]}=…")
    _check_section("", plain, ENTRIES[entry])
    _check_section("paths", plain["paths"], Paths)
    _check_targets(plain)
    for path, section in _sections(plain):
        if schema := SCHEMAS.get(section["_target_"]):
            _check_section(path, section, schema)
    _check_files(plain)


def config_hash(config: DictConfig) -> str:
    """16 hex digits of what decides a run's outcome: all but where things lie, who watches and how it resumes."""
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    decisive = {
        key: value
        for key, value in plain.items()
        if key not in ("paths", "logger", "callbacks", "resume", "run_name")
    }
    decisive["data"] = {
        k: v for k, v in plain["data"].items() if k not in ("root", "placement", "num_workers")
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _sections(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        if isinstance(node.get("_target_"), str):
            yield path, node
        for key, child in node.items():
            yield from _sections(child, f"{path}.{key}" if path else str(key))


def _check_section(path: str, section: Any, schema: type) -> None:
    prefix = f"{path}." if path else ""
    fields = {field.name: field for field in dataclasses.fields(schema)}
    if not isinstance(section, dict):
        raise UserError(f"{path}={shown(section)}: needs {', '.join(f'{prefix}{name}' for name in fields)}.")
    given = {
        key: value for key, value in section.items() if key not in ("_target_", "_partial_", "_convert_")
    }
    for key, value in given.items():
        if key not in fields:
            raise UserError(no_such_setting(prefix, key, fields))
        _check_value(f"{prefix}{key}", value, fields[key].type, fields[key].metadata)
    for field in fields.values():
        if (
            field.name not in given
            and field.default in (MISSING, dataclasses.MISSING)
            and field.default_factory is dataclasses.MISSING
        ):
            raise UserError(f"{prefix}{field.name} is needed: give {prefix}{field.name}=…")


def _check_value(name: str, value: Any, kind: Any, limits: Any) -> None:
    given = f"{name}={shown(value)}"
    if limits.get("instead"):
        raise UserError(f"{name}: camlab sets this one itself; {limits['instead']}.")
    if not _is_a(value, kind):
        raise UserError(f"{given}: must be {_describe(kind)}.")
    if limits.get("length") not in (None, len(value) if isinstance(value, list) else None):
        raise UserError(f"{given}: needs {limits['length']} numbers.")
    for item in value if isinstance(value, list) else [value]:
        _check_range(given, item, limits)


def _check_range(given: str, value: Any, limits: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{given}: must be a finite number.")
    if value is None or isinstance(value, dict) or not limits:
        return
    if (words := limits["among"]) and str(value) not in words:
        hint = did_you_mean(str(value), words)
        raise UserError(f"{given}: no such choice. {hint}Choose one of {', '.join(words)}.")
    for word, limit, ok in (
        ("greater than", limits["gt"], lambda v, bound: v > bound),
        ("at least", limits["ge"], lambda v, bound: v >= bound),
        ("less than", limits["lt"], lambda v, bound: v < bound),
        ("at most", limits["le"], lambda v, bound: v <= bound),
    ):
        if limit is not None and not ok(value, limit):
            raise UserError(f"{given}: must be {word} {limit}.")


def _is_a(value: Any, kind: Any) -> bool:
    """Whether a value is of a field's type as it stands: `off` is text, not false, for a constructor as well."""
    if kind is Any:
        return True
    if kind == list[float]:
        return isinstance(value, list) and all(_is_a(item, float) for item in value)
    if options := get_args(kind):
        return any(_is_a(value, option) for option in options)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _describe(kind: Any) -> str:
    if kind == list[float]:
        return "a list of numbers such as [0.5,0.5,0.5]"
    return " or ".join(_WORDS[option] for option in get_args(kind) or (kind,))


def _check_targets(plain: dict[str, Any]) -> None:
    """Whatever is to be built says what it is; only what watches a run, and its schedule, can be left out."""
    always: tuple[str, ...] = ("arch", "data", "trainer", "optimizer")
    needed = {key: plain[key] for key in always if key in plain}
    for group in ("logger", "callbacks"):
        if not isinstance(nodes := plain.get(group) or {}, dict):
            raise UserError(f"{group}={shown(nodes)}: choose an option of {group} (see --help).")
        needed |= {f"{group}.{key}": node for key, node in nodes.items() if node is not None}
    if plain.get("scheduler") is not None:
        needed["scheduler"] = plain["scheduler"]
    for key, node in needed.items():
        if not (isinstance(node, dict) and isinstance(node.get("_target_"), str)):
            raise UserError(
                f"{key}={shown(node)}: nothing to build; give it whole, with {key}._target_=CLASS."
            )


def _check_files(plain: dict[str, Any]) -> None:
    """Files that are named must be there: better now than when everything is loaded."""
    weights = plain.get("arch", {}).get("weights")
    if isinstance(weights, str) and weights != "imagenet":
        path = Path(weights).expanduser()
        if path.suffix not in WEIGHT_ENDINGS or not path.is_file():
            wrong = (
                "no such file"
                if path.suffix in WEIGHT_ENDINGS
                else f"does not end in {', '.join(WEIGHT_ENDINGS)}"
            )
            raise UserError(
                f"arch.weights={weights}: {wrong}. Give imagenet, a weights file, or null for none."
            )
    choices: dict[str, tuple[str | None, ...]] = {"resume": (None, "auto", "last"), "checkpoint": (None,)}
    for key, known in choices.items():
        if (value := plain.get(key)) not in known and not Path(str(value)).expanduser().exists():
            words = "".join(f"{word}, " for word in known if word)
            raise UserError(
                f"{key}={value}: no such file or folder. Give {words}a .ckpt file or a run's folder."
            )


def known_settings(target: str | None) -> list[str]:
    """The arguments of a class that a section may build; none for a class of the user's own."""
    return [field.name for field in dataclasses.fields(SCHEMAS[target])] if target in SCHEMAS else []


def did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    """`Did you mean …? `, or nothing where nothing is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"Did you mean {prefix}{near[0]}? " if near else ""


def no_such_setting(prefix: str, key: str, known: Iterable[str]) -> str:
    """The message for a key that is not known: the nearest one, or all."""
    hint = did_you_mean(key, known, prefix) or f"Known are {', '.join(known)}."
    return f"{prefix}{key}: no such setting. {hint.strip()}"


def shown(value: Any) -> str:
    """A value as it is typed on the command line."""
    return (
        str(value) if isinstance(value, (str, float)) else json.dumps(value, ensure_ascii=False, default=str)
    )
