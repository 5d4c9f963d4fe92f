"""Command that trains a network: `python -m camlab.train arch=alexnet mode=finetune`.

Torch is imported only after the configuration has been validated, and only if the run is not finished yet.
"""

from __future__ import annotations

import functools
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from camlab.command_line import sweeps
from camlab.command_line.launch import launch
from camlab.command_line.notes import write_notes
from camlab.command_line.refusals import shown
from camlab.command_line.run_identity import config_hash, recorded_settings
from camlab.errors import UserError
from camlab.evaluation.objective import check_choice, check_measured, check_validated, validates
from camlab.runs import checkpoint_files, data_identity, ownership, run_folder
from camlab.runs.provenance import provenance
from camlab.training.interruption import Interruption, interruptible

if TYPE_CHECKING:
    from collections.abc import Callable

    import lightning as L
    from lightning.pytorch.loggers import Logger

    from camlab.data.module import ImageData
    from camlab.training.classifier import Classifier
    from camlab.training.run import Run

    Load = Callable[[], ImageData]

log = logging.getLogger(__name__)

_ADVICE = "mode=frozen trains the head only; data=shapes is small; trainer.max_epochs=10 gives a first impression."


def main() -> None:
    """Run the command `camlab-train`."""
    launch(train, "train")


def train(config: DictConfig) -> float:
    """Run one training job in its output folder; a job that is already finished is skipped.

    Returns:
        What a sweep maximises: the best validation accuracy, or the test accuracy if there is no validation split.
    """
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    if sweeps.under_way():
        config.run_name = run_dir.name
    with run_folder.locked(run_dir, wait=sweeps.chooses()):
        in_place = _is_in_place(config, run_dir)
        load = functools.cache(functools.partial(_load_data, config))  # large sets are read once
        if in_place and not config.force and (result := _finished(config, run_dir, load)) is not None:
            return float(result["objective"])
        checkpoint = _checkpoint(config, run_dir, in_place, load)
        with interruptible("" if sweeps.under_way() else f" with out={run_dir}") as interruption:
            return _run(config, run_dir, checkpoint, load, interruption)


def _run(config: DictConfig, run_dir: Path, checkpoint: Path | None, load: Load, interruption: Interruption) -> float:
    """Build everything, train, test once and write `result.json`; returns the objective of the run."""
    from camlab.models.devices import check_accelerator

    check_accelerator(config.trainer.accelerator)  # before the heavy imports below

    import lightning as L

    from camlab.evaluation.run_result import chosen_by, describe_result, show_result, test_fitted
    from camlab.tracking.metrics_csv import MetricsCsv
    from camlab.training.callbacks.continuing import fit
    from camlab.training.run import begin

    began = time.perf_counter()
    L.seed_everything(config.seed, workers=True, verbose=False)
    data = load()
    _check_data(config, run_dir, data)
    classifier = _build_classifier(config, data)
    run = begin(recorded_settings(config), run_dir, checkpoint, classifier, data, config.resume not in ("auto", "last"))
    csv = MetricsCsv(run_dir)
    loggers = [*_build_loggers(config, run_dir), csv]
    trainer = _build_trainer(config, run, data, loggers, interruption)
    run_folder.check_rank(trainer.is_global_zero)
    if trainer.is_global_zero:
        _prepare_folder(config, run, data)  # only now, after all checks have passed
    try:
        _describe(config, run, loggers)
        fit(trainer, classifier, data, run)
        fitted = {key: value for row in csv.rows for key, value in row.items() if key not in ("epoch", "step")}
        chosen = chosen_by(trainer)
        report = test_fitted(trainer, classifier, data, chosen and run.own_best(*chosen), run_dir)
        result = describe_result(trainer, data, fitted, report)
        check_validated(result["metrics"], sweeps.chooses())
        if trainer.is_global_zero:
            about = {"wall_time_s": round(time.perf_counter() - began, 2), "seed": config.seed}
            run_folder.write_result(run_dir, {**result, **about, "config_hash": config_hash(config)})
            show_result(result, report, loggers, run_dir)
        return float(result["objective"])
    finally:
        for logger in loggers:
            getattr(logger, "finish", lambda: None)()


# ---- the run's folder


def _is_in_place(config: DictConfig, run_dir: Path) -> bool:
    """Whether the run in the folder continues: because `resume` says so, or because the same command has started it."""
    return config.resume in (None, "auto") or ownership.was_started_with(run_dir, config.resume)


def _finished(config: DictConfig, run_dir: Path, load: Load) -> dict[str, Any] | None:
    """Return the result of the run in the folder if it is finished, and log it in one line; else return None.

    Raises:
        UserError: The folder holds a run with other settings or other data.
    """
    ownership.check_same_run(run_dir, config_hash(config))
    if (result := run_folder.read_result(run_dir)) is None:
        return None
    if not _has_these_data(config, load, run_dir):
        data_identity.check_same_data(run_dir, _identity(config, load()))
    metrics = result["metrics"]
    check_validated(metrics, sweeps.chooses())
    name = "test/acc" if "test/acc" in metrics else "val/best_acc"
    log.info("%s is finished: %s %.4f.", run_dir, name, metrics[name])
    return result


def _checkpoint(config: DictConfig, run_dir: Path, in_place: bool, load: Load) -> Path | None:
    """Find the checkpoint that training resumes from; None starts from the beginning.

    Raises:
        UserError: The checkpoint is missing, damaged or would be removed by `force`, or the folder holds another run.
    """
    from camlab.training.run import run_of

    given = config.resume
    if config.force and given in (None, "auto"):
        return None
    if in_place and not config.force and given is not None and (run_dir / run_folder.LAST).is_file():
        given = "auto"
    if given is None and not config.force:
        ownership.check_no_checkpoint(run_dir)
    same_data, digest = functools.partial(_has_these_data, config, load), config_hash(config)
    found = checkpoint_files.checkpoint_to_resume(given, run_dir, Path(config.paths.outputs), digest, same_data, run_of)
    if not config.force and not in_place:
        ownership.check_not_taken(run_dir, digest, found)
    if config.force and found is not None and found.resolve().is_relative_to(run_dir.resolve()):
        raise UserError(f"force=true would remove {found}, from which resume={given} continues. Give one of them.")
    return found


def _has_these_data(config: DictConfig, load: Load, run_dir: Path) -> bool:
    """Whether the run in a folder used this run's data: unchanged files in the same folder, or the same content."""
    found, root = data_identity.read_data_identity(run_dir), data_identity.data_root(config.data)
    if found is None:
        return not run_folder.has_output(run_dir)
    if found.root == root and found.files in (None, data_identity.hash_of_files(config.data)):
        return True
    return found.same_as(_identity(config, load()))


# ---- building


def _load_data(config: DictConfig) -> ImageData:
    data: ImageData = instantiate(config.data)
    data.setup()
    return data


def _identity(config: DictConfig, data: ImageData) -> data_identity.DataIdentity:
    root, files = data_identity.data_root(config.data), data_identity.hash_of_files(config.data)
    return data_identity.DataIdentity(data.fingerprint(), data.class_names, root, files)


def _check_data(config: DictConfig, run_dir: Path, data: ImageData) -> None:
    if config.resume in (None, "auto") and not config.force:
        data_identity.check_same_data(run_dir, _identity(config, data))
    has_val, has_masks = "val" in data.splits, data.splits["train"].masks is not None
    check_measured(config.trainer, has_val, sweeps.chooses())
    check_choice(config, has_val, has_masks, data.has_several_labels)
    data.check_outputs(config.arch.num_classes)


def _build_classifier(config: DictConfig, data: ImageData) -> Classifier:
    from camlab.training.callbacks.pointing_game import tell_small_maps
    from camlab.training.classifier import Classifier

    network = instantiate(config.arch, num_classes=config.arch.num_classes or len(data.class_names))
    image_size = data.preprocess.image_size
    network.check_image_size(image_size)
    tell_small_maps(network, image_size, config.checkpoint_by)
    optimizer, scheduler = (instantiate(part, _convert_="all") for part in (config.optimizer, config.scheduler))
    classifier = Classifier(network, optimizer, scheduler, data.has_several_labels)
    if config.compile:
        network.compile()  # in place: neither checkpoints nor heatmaps change
    return classifier


def _prepare_folder(config: DictConfig, run: Run, data: ImageData) -> None:
    """Remove the files that a run replaces, record its settings and data, and copy the checkpoints that it needs.

    Raises:
        UserError: A checkpoint in the folder belongs to another run.
    """
    from camlab.training.callbacks.checkpoints import take_along
    from camlab.training.run import check_own

    if not config.force:
        check_own(run)
    write_notes(run.folder, config)
    (run.folder / run_folder.FAILURE).unlink(missing_ok=True)
    if config.force or run.continued is None:
        run_folder.forget(run.folder, replaces=config.force)
    run_folder.write_config(run.folder, OmegaConf.to_yaml(config, resolve=True), config_hash(config), run.id)
    data_identity.write_data_identity(run.folder, _identity(config, data))
    take_along(run)


def _build_loggers(config: DictConfig, run_dir: Path) -> list[Logger]:
    nodes = [node for node in (config.logger or {}).values() if node]
    return [instantiate(node, _convert_="all", save_dir=str(run_dir)) for node in nodes]


def _build_trainer(
    config: DictConfig, run: Run, data: ImageData, loggers: list[Logger], interruption: Interruption
) -> L.Trainer:
    from camlab.training.callbacks.checkpoints import CheckpointFiles

    plugins = instantiate(config.trainer.get("plugins"), _convert_="all") or []
    limits = {} if data.validation_splits else {"limit_val_batches": 0}  # or Lightning warns of missing loaders
    trainer: L.Trainer = instantiate(
        config.trainer,
        _convert_="all",
        callbacks=_build_callbacks(config, run, "val" in data.splits, interruption),
        logger=loggers,
        default_root_dir=str(run.folder),
        enable_progress_bar=sys.stdout.isatty(),
        plugins=[*(plugins if isinstance(plugins, list) else [plugins]), CheckpointFiles()],
        deterministic=config.deterministic or config.trainer.deterministic,
        **limits,
    )
    return trainer


def _build_callbacks(config: DictConfig, run: Run, has_val: bool, interruption: Interruption) -> list[L.Callback]:
    from lightning.pytorch.callbacks import RichProgressBar

    from camlab.training.callbacks.augmentation_sheet import AugmentationSheet
    from camlab.training.callbacks.checkpoints import checkpoints
    from camlab.training.callbacks.continuing import Continuing
    from camlab.training.callbacks.feature_cache import FeatureCache
    from camlab.training.callbacks.loss_guard import LossGuard
    from camlab.training.callbacks.progress import EarlyStopTold, PlainProgress, TimeEstimate

    chosen = [instantiate(node, _convert_="all") for node in (config.callbacks or {}).values() if node]
    if config.cache:
        chosen.append(FeatureCache(config.paths.cache))
    if config.trainer.enable_checkpointing is not False:
        validated = validates(config.trainer, has_val)
        chosen += checkpoints(run, validated, config.checkpoint_every, interruption, config.checkpoint_by)
    if run.continued is not None:
        chosen.insert(0, Continuing(run.continued))
    elif (augment := recorded_settings(config)["data"].get("augment")) is not None:
        chosen.insert(0, AugmentationSheet(run.folder, shown(augment)))
    progress = RichProgressBar() if sys.stdout.isatty() else PlainProgress()
    return [LossGuard(run.folder), *chosen, progress, EarlyStopTold(), TimeEstimate(advice=_ADVICE)]


def _describe(config: DictConfig, run: Run, loggers: list[Logger]) -> None:
    """Send the settings to the loggers, and tell the user the run's folder and the checkpoint it resumes from."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    about = {**plain, "config_hash": config_hash(config), "run_dir": str(run.folder), **provenance()}
    for logger in loggers:
        logger.log_hyperparams(about)
    log.info("Run folder: %s", run.folder)
    if run.continued is not None:
        run.continued.describe()


if __name__ == "__main__":
    from camlab.train import main as entry  # so that pickled jobs refer to camlab.train, not to __main__

    entry()
