"""Configurations: every option can be built, the schemas are right, and invalid settings are refused with the fix."""

import copy
import functools
import inspect
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import torch
import wandb
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import get_class, instantiate
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.strategies import StrategyRegistry
from omegaconf import DictConfig, OmegaConf
from torch.utils.tensorboard import SummaryWriter

from camlab.command_line import refusals, sections, settings, trainer_section
from camlab.command_line.commands import COMMANDS
from camlab.command_line.conf import conf_dir
from camlab.command_line.mistakes import explain_mistake
from camlab.data.module import ImageData
from camlab.errors import UserError
from camlab.runs.watchers import WATCHERS
from camlab.training.schedules import counts_steps

PLACES = {
    "data=folder": ["data.root=."],
    "data=table": ["data.file=pictures.csv"],
    "data=huggingface": ["data.path=pictures"],
    "experiment=own_data": ["data.root=."],
}  # what these data sets require
OPTIONS = sorted(f"{file.parent.name}={file.stem}" for file in conf_dir().glob("*/*.yaml"))


@pytest.fixture(scope="module", autouse=True)
def hydra() -> Iterator[None]:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield


def composed(*overrides: str, entry: str = "train") -> DictConfig:
    return compose(entry, list(overrides))


def checked(*overrides: str, entry: str = "train") -> DictConfig:
    found = composed(*overrides, entry=entry)
    return settings.checked(found, entry)


@functools.cache
def plain(entry: str) -> DictConfig:
    return compose(entry)


def overridden(override: str, entry: str = "train") -> DictConfig:
    """Compose with one override that chooses no option; it takes a tenth of the time that `composed` does."""
    found = copy.deepcopy(plain(entry))
    ConfigLoaderImpl._apply_overrides_to_config([OverridesParser.create().parse_override(override)], found)
    return found


def refusal(*overrides: str, entry: str = "train") -> str:
    """The message that a user gets about a configuration that Hydra or `settings.checked` refuses."""
    alone = len(overrides) == 1 and re.match(r"[+~]?\w+\.[\w.]+=", overrides[0])
    make = (lambda: overridden(overrides[0], entry)) if alone else (lambda: composed(*overrides, entry=entry))
    with pytest.raises(Exception) as refused:  # noqa: PT011  Hydra raises several kinds
        settings.checked(make(), entry)
    told = explain_mistake(refused.value)
    assert told is not None
    assert len(told.splitlines()) <= 2
    return told


# ---- every option


def test_all_groups_are_there():
    groups = {option.partition("=")[0] for option in OPTIONS}
    assert groups == {
        "arch", "mode", "data", "trainer", "logger", "callbacks", "launcher", "sweeper", "experiment", "debug",
    }  # fmt: skip


@pytest.mark.parametrize("option", [*OPTIONS, "logger=[wandb,tensorboard]", "logger=[wandb,csv]"])
def test_every_option_composes_and_builds(option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if option in ("logger=mlflow", "logger=aim"):
        name = option.removeprefix("logger=")
        pytest.importorskip(name, reason=f"{name} is not installed (pip install {name})")
    node = checked(option, "arch.weights=null", *PLACES.get(option, []))
    with torch.device("meta"):  # only shapes matter, and drawing weights would take time
        network = instantiate(node.arch, num_classes=10)
    data_class = get_class(node.data._target_)
    assert issubclass(data_class, ImageData)
    options = {key: value for key, value in node.data.items() if key != "_target_"}
    assert isinstance(data_class(**OmegaConf.to_container(OmegaConf.create(options))), ImageData)
    optimizer = instantiate(node.optimizer, _convert_="all", fused=None)(network.parameters())  # not on meta
    assert optimizer.param_groups[0]["lr"] == node.optimizer.lr
    if node.scheduler is not None:
        make = instantiate(node.scheduler, _convert_="all")
        length = {"total_steps": 100} if counts_steps(make) else {}  # the classifier gives it
        assert make(optimizer, **length).get_last_lr()
    callbacks = [instantiate(child, _convert_="all") for child in node.callbacks.values()]
    loggers = [instantiate(child, _convert_="all", save_dir=str(tmp_path)) for child in (node.logger or {}).values()]
    quiet = {"enable_progress_bar": False, "enable_checkpointing": False}
    trainer = instantiate(
        node.trainer,
        _convert_="all",
        accelerator="cpu",
        devices=1,
        callbacks=callbacks,
        logger=loggers,
        **quiet,
    )
    assert trainer.max_epochs == node.trainer.max_epochs
    assert not list(tmp_path.iterdir()), "building must write nothing"


def test_several_loggers_at_once():
    assert set(checked("logger=[wandb,tensorboard]").logger) == {"wandb", "tensorboard"}
    assert set(checked("logger=[wandb,csv]").logger) == {"wandb"}  # metrics.csv is always written
    assert not checked("logger=csv").get("logger")


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.startswith(("data=", "trainer="))])
def test_evaluation_composes(option, tmp_path):
    (tmp_path / "a.ckpt").touch()
    checked(
        option,
        f"checkpoint={tmp_path}/a.ckpt",
        *PLACES.get(option, ["split=val"]),
        *([] if "data=" in option else ["data=shapes"]),
        entry="evaluate",
    )


# ---- what a mode and an experiment bring


def test_a_mode_brings_lr_and_epochs_and_the_command_line_wins():
    for mode, lr in (("frozen", 1e-3), ("finetune", 1e-4)):
        found = checked(f"mode={mode}")
        assert (found.optimizer.lr, found.trainer.max_epochs, found.arch.frozen) == (
            lr,
            150,
            mode == "frozen",
        )
        found = checked(f"mode={mode}", "optimizer.lr=0.5", "trainer.max_epochs=2")
        assert (found.optimizer.lr, found.trainer.max_epochs) == (0.5, 2)


def test_table1_keeps_the_mode_and_trains_on_everything():
    frozen, finetune = (
        checked("experiment=table1", "mode=frozen"),
        checked("mode=finetune", "experiment=table1"),
    )
    assert (frozen.optimizer.lr, finetune.optimizer.lr) == (1e-3, 1e-4)
    assert (frozen.data.val_size, frozen.test_each_epoch, frozen.data.test_each_epoch) == (0, True, True)


# ---- the schemas against what they describe


def parameters(function: Any) -> set[str]:
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    found = inspect.signature(function).parameters.values()
    return {p.name for p in found if p.kind not in kinds} - {"self", "params"}


@pytest.mark.parametrize(("target", "schema"), sections.SECTIONS.items())
def test_schemas_name_the_arguments_of_what_they_describe(target, schema):
    described = parameters(get_class(target).__init__)
    if issubclass(get_class(target), ImageData):
        for kind in get_class(target).__mro__:
            described |= parameters(kind.__init__) if issubclass(kind, ImageData) else set()
    if schema is sections.Wandb:
        described |= parameters(WandbLogger.__init__) | parameters(wandb.init)
        described -= {"save_dir"}  # the run's folder
    if schema is sections.TensorBoard:
        described |= parameters(TensorBoardLogger.__init__) | parameters(SummaryWriter.__init__)
        described -= {"save_dir", "log_dir", "default_hp_metric"}  # camlab sets them
    assert set(refusals.settings_of(schema)) == described


def test_every_target_in_conf_has_a_schema():
    without = {
        "camlab.command_line.settings.CheckBeforeRun",
        "camlab.command_line.sweeps.RememberCommand",
        "torch.optim.lr_scheduler.OneCycleLR",
        "torch.optim.lr_scheduler.MultiStepLR",
        "lightning.pytorch.callbacks.EarlyStopping",
    }
    text = "\n".join(file.read_text() for file in conf_dir().rglob("*.yaml"))
    targets = {
        line.split("_target_:")[1].split()[0] for line in text.splitlines() if line.strip().startswith("_target_:")
    }
    assert targets - set(sections.SECTIONS) <= without


def test_the_callbacks_of_conf_are_those_that_only_watch():
    nodes = [item for file in conf_dir().glob("callbacks/*.yaml") for item in OmegaConf.load(file).items()]
    found = {name: node["_target_"] for name, node in nodes}
    assert found == WATCHERS


def test_schemas_hold_no_defaults_and_every_setting_in_conf_is_in_one():
    for schema in (*sections.SECTIONS.values(), *COMMANDS.values()):
        assert not [name for name in refusals.settings_of(schema) if hasattr(schema, name) and name not in dir(dict)]
    for entry in COMMANDS:
        node = composed(*(["checkpoint=."] if entry == "evaluate" else []), entry=entry)
        assert set(node) - {"hydra"} <= set(refusals.settings_of(COMMANDS[entry]))


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.startswith("data=")])
def test_defaults_in_conf_are_those_of_the_constructors(option):
    found = OmegaConf.to_container(composed(option).copy(), resolve=False)
    chosen = {"num_classes", "weights", "val_size", "name"}  # set by the option instead of the constructor
    for node in (found["arch"], found["data"], *found["callbacks"].values()):
        kinds = [kind for kind in get_class(node["_target_"]).__mro__[::-1] if kind.__module__.startswith("camlab.")]
        real = {k: p.default for kind in kinds for k, p in inspect.signature(kind.__init__).parameters.items()}
        for key, value in node.items():
            default = list(real[key]) if isinstance(real.get(key), tuple) else real.get(key)
            if (
                key[0] != "_"
                and "${" not in str(value)
                and key not in chosen
                and default is not inspect.Parameter.empty
            ):
                assert value == default, key


def test_stored_words_are_those_of_the_libraries():
    assert set(trainer_section.STRATEGIES) - {"auto"} <= set(StrategyRegistry.available_strategies())
    from lightning.fabric.connector import (
        _PRECISION_INPUT_INT,
        _PRECISION_INPUT_STR,
        _PRECISION_INPUT_STR_ALIAS,
    )

    words = [
        w for kind in (_PRECISION_INPUT_INT, _PRECISION_INPUT_STR, _PRECISION_INPUT_STR_ALIAS) for w in kind.__args__
    ]
    assert set(trainer_section.PRECISIONS) == {str(word) for word in words}


# ---- what is refused, and what is said

REFUSED = {
    "optimizer.lr=abc": "optimizer.lr=abc: must be a number.",
    "optimizer.lr=-1": "optimizer.lr=-1: must be greater than 0.",
    "optimizer.lr=0": "optimizer.lr=0: must be greater than 0.",
    "optimizer.lr=nan": "optimizer.lr=nan: must be a finite number.",
    "optimizer.lr=inf": "optimizer.lr=inf: must be a finite number.",
    "optimizer.lr=true": "optimizer.lr=true: must be a number.",
    "optimizer.lr=null": "optimizer.lr=null: must be a number.",
    "optimizer.lrr=1": "Did you mean optimizer.lr?",
    "+optimizer.lrr=1": "Did you mean optimizer.lr?",
    "optimizer=null": "optimizer=null: must be a section that names its class: optimizer._target_=CLASS.",
    "optimizer=sgd": "optimizer=sgd: must be a section",
    "~optimizer": "optimizer is required. Give optimizer=VALUE.",
    "~optimizer.lr": "optimizer.lr is required. Give optimizer.lr=VALUE.",
    "+optimizer.betas=[0.9]": "optimizer.betas=[0.9]: needs 2 values.",
    "+optimizer.betas=[0.9,1]": "must be less than 1.",
    "scheduler=cosine": "scheduler=cosine: must be a section that names its class: scheduler._target_=CLASS.",
    "trainer.max_epochs=0": "trainer.max_epochs=0: must be at least 1.",
    "trainer.max_epochs=1.5": "must be a whole number.",
    "+trainer.max_epocs=3": "Did you mean trainer.max_epochs?",
    "trainer.max_epocs=3": "Did you mean trainer.max_epochs?",
    "trainer.precision=17": "Choose from 32-true",
    "trainer.precision=bf16-mixd": "Did you mean bf16-mixed?",
    "trainer.accelerator=gppu": "Did you mean gpu?",
    "trainer.gradient_clip_val=-1": "must be at least 0.",
    "trainer.strategy=ddp": "Add it with a plus: +trainer.strategy=VALUE",
    "+trainer.strategy=dpp": "Did you mean ddp?",
    "+trainer.logger=false": "choose with logger=",
    "+trainer.default_root_dir=x": "trainer.default_root_dir: camlab sets this itself; give out=FOLDER.",
    "+data.batchsize=3": "Did you mean data.batch_size?",
    "data.batch_size=0": "must be at least 1.",
    "data.batch_size=abc": "must be a whole number.",
    "data.augment=strng": "data.augment=strng: unknown step strng. Did you mean strong?",
    "data.augment=[flip,{crop: 2}]": "data.augment=[flip,{crop: 2}]: crop.scale must be a number from 0.01 to 1.",
    "data.augment=[{mixup: {beta: 1}}]": "mixup has no number beta. Choose from p, alpha.",
    "data.augment=[{mixup: 0.6},{cutmix: 0.6}]": "the shares p of mixup and cutmix exceed 1 together.",
    "data.augment=[[flip]]": "an entry is a name, {name: number} or {name: {…}}, as in [standard,{crop: 0.4},",
    "data.augment=0.5": "data.augment=0.5: must be none, flip, standard, strong, null, or a list such as [standard,",
    "data.augment_views=0": "data.augment_views=0: must be at least 1.",
    "data.flip=2": "data.flip=2: must be at most 1.",
    "data.image_size=0": "must be at least 1.",
    "data.val_size=0.1": "must be a whole number.",
    "data.shortcut=dot": "Choose from patch, stripe, tint.",
    "data.shortcut_strength=2": "must be at most 1.",
    "data.shortcut_classes=[1.5]": "must be",
    "data.mean=0.5": "must be a list of numbers such as [0.5,0.5,0.5]",
    "data.mean=[0.5]": "needs 3 values",
    "data.std=[0.5,0.5,0]": "must be greater than 0",
    "data.placement=gpu": "Choose from auto, device, host.",
    "data=folder": "data.root is required. Give data.root=VALUE.",
    "data=cifar": "Did you mean data=cifar10?",
    "arch=alexnt": "Did you mean arch=alexnet? Choose from alexnet, cam_net, classifier, vgg13.",
    "arch.backbone=resnet19": "arch.backbone=resnet19: unknown network. Did you mean arch.backbone=resnet18",
    "arch.backbone=xx": "Choose a classifier of torchvision, or one of timm after timm/: resnet18, timm/resnet18.",
    "arch.cam_relu=3": "must be true or false",
    "arch.cam_relu=off": "must be true or false",  # text, and text is true
    "arch.num_classes=1": "must be at least 2",
    "checkpoint_by=val/heat/drift": "more of it is neither better nor worse, so no epoch is the best. Choose from val/acc",
    "arch.weights=imagnet": "Did you mean imagenet? Give pretrained, a weights file, or null for none.",
    "arch.weights=nowhere.pth": "no such file. Give pretrained, a weights file, or null for none.",
    "arch.weights=3": "must be text or null",
    "~arch.backbone": "arch.backbone",
    "+foo=1": "foo: unknown setting. Available: ",
    "foo=1": "foo: unknown setting. Available: ",
    "lr=1": "Did you mean optimizer.lr?",
    "epochs=1": "Did you mean trainer.max_epochs?",
    "batch_size=1": "Did you mean data.batch_size?",
    "scheduler.T_max=1": "scheduler.T_max: unknown setting.",
    "seed=-1": "seed=-1: must be at least 0.",
    "seed=4294967296": "must be at most 4294967295.",
    "seed=abc": "seed=abc: must be a whole number.",
    "seed=null": "seed=null: must be a whole number.",
    "seed=${nowhere}": "Interpolation key 'nowhere' not found",
    "test_each_epoch=3": "must be true or false.",
    "resume=3": "resume=3: must be text or null.",
    "resume=nowhere": "Give auto, last, a .ckpt file or a run's folder.",
    "run_name=null": "run_name=null: must be text.",
    "paths.outputs=null": "paths.outputs=null: must be text.",
    "paths=3": "paths",
    "callbacks.heatmap=null": "Did you mean callbacks.heatmaps?",
    "callbacks.heatmaps.alpha=2": "must be at most 1.",
    "callbacks.heatmaps.normalize=none": "Choose from per_image, shared, raw.",
    "callbacks.heatmaps.colormap=gray": "Choose from jet, viridis",
    "logger.wandb.log_checkpoint=1": "must be true or false.",
    "checkpoint_every=0": "must be a number of steps such as 500, a time such as 10min, or null.",
    "+callbacks.mine=3": "callbacks.mine=3: must be a section",
    "+logger.wandb.proj=x": "Did you mean logger.wandb.project?",
    "logger.wandb.mode=off": "Choose from online, offline, disabled",
    "logger=wandbb": "Did you mean logger=wandb?",
    "logger=[wandbb,csv]": "Did you mean logger=wandb?",
    "arch=alexnet,vgg13": "several values need a sweep: add -m",
    "seed": "seed: not understood",
}  # fmt: skip


@pytest.mark.parametrize(("override", "said"), REFUSED.items(), ids=list(REFUSED))
def test_invalid_settings_are_refused_with_key_and_fix(override, said):
    told = refusal(override)
    assert said in told
    assert override.lstrip("+~").partition("=")[0].rpartition(".")[2] in told, "the message must name the key"


def test_evaluation_refuses_too():
    assert refusal(entry="evaluate") == "checkpoint is required. Give checkpoint=VALUE."
    assert "no such file or folder" in refusal("checkpoint=nowhere", entry="evaluate")
    assert "Choose from train, val, test." in refusal("checkpoint=.", "data=shapes", "split=tst", entry="evaluate")
    assert refusal("checkpoint=.", "data=shapes", "spilt=val", entry="evaluate").endswith("Did you mean split?")
    assert "this command has no such choice" in refusal("checkpoint=.", "arch=alexnet", entry="evaluate")


@pytest.mark.parametrize(
    "override",
    ["callbacks.heatmaps=null", "+trainer.strategy=ddp", "trainer.precision=16", "+optimizer.betas=[0.8,0.9]", "resume=null",
     "resume=.", "optimizer._target_=torch.optim.AdamW", "+logger.wandb.save_code=true", "arch.num_classes=5",
     "trainer.limit_train_batches=0.5", "+callbacks.mine._target_=lightning.pytorch.callbacks.LearningRateMonitor"],
)  # fmt: skip
def test_valid_overrides_are_accepted(override):
    settings.checked(overridden(override), "train")


def test_settings_of_the_users_own_classes_are_not_checked():
    checked("optimizer._target_=my.Optimizer", "+optimizer.strange=-1", "scheduler={_target_: my.Schedule}")


def test_a_class_that_is_not_there_is_told(tmp_path):
    for override in ("optimizer._target_=torch.optim.Adamm", "optimizer._target_=nowhere.Adam"):
        node = checked(override)
        with pytest.raises(Exception, match="locating") as raised:
            instantiate(node.optimizer)
        assert "optimizer: Error locating target" in (explain_mistake(raised.value) or "")


def test_what_the_trainer_refuses_is_told_and_a_bug_is_not():
    node = checked("trainer.devices=abc", "trainer.accelerator=cpu")
    with pytest.raises(Exception, match="devices") as raised:
        instantiate(node.trainer)
    assert "should be an int > 0" in (explain_mistake(raised.value) or "")
    node = checked("trainer.devices=0", "trainer.accelerator=cpu")
    with pytest.raises(Exception, match="devices=0") as raised:
        instantiate(node.trainer)
    assert "is not a valid input using cpu" in (explain_mistake(raised.value) or "")
    with pytest.raises(Exception, match="invalid literal") as raised:
        instantiate({"_target_": "camlab.training.callbacks.checkpoints.steps_or_seconds", "every": "x"})
    assert explain_mistake(raised.value) is None


# ---- the hash


def test_the_hash_tells_outcomes_apart_and_nothing_else():
    expected = settings.config_hash(composed())
    assert len(expected) == 16
    for same in ("paths.outputs=x", "paths.data=x", "data.root=x", "logger=csv", "callbacks.heatmaps=null", "resume=null",
                 "run_name=x", "data.placement=host", "logger.wandb.project=x"):  # fmt: skip
        assert settings.config_hash(overridden(same) if "=csv" not in same else composed(same)) == expected, same
    others = [
        "optimizer.lr=0.1",
        "seed=1",
        "mode=frozen",
        "arch=vgg13",
        "data=shapes",
        "data.batch_size=64",
        "trainer.max_epochs=3",
    ]
    assert len({expected, *(settings.config_hash(composed(other)) for other in others)}) == len(others) + 1


def test_callbacks_that_take_part_and_the_content_of_weights_count(tmp_path):
    swa = "+callbacks.swa={_target_: lightning.pytorch.callbacks.StochasticWeightAveraging, swa_lrs: %s}"
    found = {settings.config_hash(found) for found in (composed(), composed(swa % "1e-2"), composed(swa % "1e-3"))}
    assert len(found) == 3
    watcher = composed("callbacks.heatmaps.per_class=7")
    assert settings.config_hash(watcher) == settings.config_hash(composed())
    assert settings.config_hash(composed("callbacks.scores.tolerance=9")) not in found, "it changes a score"
    hashes = []
    for content in (b"first", b"other"):
        for name in ("a.pth", "b.pth"):
            (tmp_path / name).write_bytes(content)
            hashes.append(settings.config_hash(composed(f"arch.weights='{tmp_path / name}'")))
    assert hashes[0] == hashes[1], "where it lies does not count"
    assert hashes[2] == hashes[3]
    assert len({*found, *hashes}) == 5


def test_the_hash_survives_writing_and_reading():
    found = composed()
    assert settings.config_hash(OmegaConf.create(OmegaConf.to_yaml(found, resolve=True))) == settings.config_hash(found)


@pytest.mark.parametrize("removed", ["data.image_size", "arch.backbone", "arch.keep_last_pool"])
def test_settings_that_were_removed_are_left_to_the_constructors(removed):
    with suppress(UserError):  # some are required
        checked(f"~{removed}")
