"""Evaluate a trained network: `python -m camlab.evaluate checkpoint=outputs/…` (Hydra entry)."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from camlab.command_line.arguments import quote
from camlab.command_line.launch import launch
from camlab.errors import UserError
from camlab.runs import run_folder

log = logging.getLogger(__name__)


def main() -> None:
    """Entry of `camlab-evaluate`."""
    try:
        arguments = with_data_of_run(sys.argv[1:])
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    launch(evaluate, "evaluate", arguments)


def evaluate(config: DictConfig) -> float:
    """Accuracy, per class, and the confusion matrix, written to Hydra's folder for the job.

    Returns:
        The accuracy, 0 to 1.
    """
    from hydra.utils import instantiate

    from camlab.evaluation.report import write_report
    from camlab.evaluation.testing import evaluate as test
    from camlab.models.devices import check_accelerator
    from camlab.training.checkpoint import load_network

    check_accelerator(config.trainer.accelerator)
    out = Path(HydraConfig.get().runtime.output_dir)
    trained = load_network(Path(config.checkpoint).expanduser())
    data = instantiate(config.data)
    data.preprocess = trained.preprocess  # pictures are prepared as in training, whatever the data section says
    trainer_options: Any = OmegaConf.to_container(config.trainer, resolve=True)
    report = test(trained, data, config.split, trainer_options, str(out))
    write_report(out, report)
    log.info("%s", report.as_text())
    log.info("Written to %s: evaluation.json, confusion_matrix.png, confusion_matrix.csv", out)
    return report.accuracy


def with_data_of_run(arguments: list[str]) -> list[str]:
    """Put the data settings of the run that made the checkpoint before the user's own, unless these choose a data set.

    Raises:
        UserError: the run's configuration is damaged.
    """
    given = dict(a.lstrip("+").split("=", 1) for a in arguments if "=" in a)
    if "data" in given or not (checkpoint := given.get("checkpoint", "").strip("'\"")):
        return arguments
    config_file = _config_of(Path(checkpoint).expanduser())
    if config_file is None:
        return arguments
    try:
        data: dict[str, Any] = dict(OmegaConf.to_container(OmegaConf.load(config_file).data))  # type: ignore[arg-type]
    except Exception as error:
        raise UserError(f"{config_file}: damaged; say which data to evaluate on with data=….") from error
    option = _option_of(config_file.parent) or data["name"]
    data.pop("_target_")
    settings = [f"++data.{key}={_written(value)}" for key, value in data.items()]
    return [f"data={option}", *settings, *arguments]


def _option_of(run_dir: Path) -> str | None:
    """The option of the group `data` that a run was started with; its name is the user's to change."""
    try:
        hydra = OmegaConf.load(run_dir / ".hydra" / "hydra.yaml")
    except (OSError, ValueError):
        return None
    return OmegaConf.select(hydra, "hydra.runtime.choices.data")


def _written(value: Any) -> str:
    """A value as Hydra's grammar reads it."""
    return quote(value) if isinstance(value, str) else json.dumps(value)


def _config_of(checkpoint: Path) -> Path | None:
    for folder in (checkpoint, *checkpoint.parents[:2]):
        if (folder / run_folder.CONFIG).is_file():
            return folder / run_folder.CONFIG
    return None


if __name__ == "__main__":
    from camlab.evaluate import main as entry  # by a name under which other processes find it, not as __main__

    entry()
