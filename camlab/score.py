"""Command that tells how far a network's heatmaps can be trusted: `python -m camlab.score checkpoint=outputs/…`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig

from camlab.command_line.launch import launch
from camlab.errors import Interrupted, UserError, plain
from camlab.runs.score_names import SCORES, SCORES_OF_AUTO

if TYPE_CHECKING:
    from camlab.evaluation.scoring.picture_set import PictureSet
    from camlab.evaluation.scoring.request import Request
    from camlab.evaluation.scoring.summary import Summary
    from camlab.models.trained_network import TrainedNetwork

log = logging.getLogger(__name__)


def main() -> None:
    """Run the command `camlab-score`."""
    launch(score, "score")


def score(config: DictConfig) -> int:
    """Score the heatmaps of a network; write tables, charts and a page to the output folder.

    Returns:
        Number of pictures that were scored.

    Raises:
        UserError: The input is invalid, the check of the scoring itself has failed, or some pictures could not be read;
            the latter is raised after all others are done.
        Interrupted: The user has interrupted the command, which can be given again.
    """
    from camlab.evaluation.scoring.score_pictures import score_pictures
    from camlab.evaluation.scoring.shown_maps import write_shown_maps
    from camlab.models.devices import choose_device
    from camlab.scores.statistics import ScoringError
    from camlab.training.given_network import given_network
    from camlab.training.interruption import Interruption
    from camlab.viewer.html import write_into

    device, network = choose_device(config.device), config.network
    trained = given_network(config.checkpoint, network.name, network.weights, network.prefix, config.class_names)
    if config.checkpoint is None and network.weights is None:
        log.warning("network.weights=null: the weights are random, so the heatmaps mean nothing.")
    pictures, validation = _pictures(config, trained)
    out = Path(HydraConfig.get().runtime.output_dir)
    try:
        with Interruption():
            summary = score_pictures(trained, pictures, out, _request(config), device, validation)
            _write(summary, trained, config, out)
            write_shown_maps(trained, summary, out, _request(config), device, config.maps)
    except ScoringError as error:
        told = "No table is written, and the methods that are finished are kept. Try another seed= and a larger n=, and"
        raise UserError(str(error), f"{told} report it if it stays.") from error
    except Interrupted as stop:
        told = "Interrupted. The methods that are finished are kept, and the same command goes on."
        raise Interrupted(stop.signal_number, told) from None
    if page := write_into(out):
        log.info("Browse the heatmaps: open %s in a browser.", plain(str(page)))
    if pictures.skipped:
        count = f"{len(pictures.skipped)} picture{' was' if len(pictures.skipped) == 1 else 's were'} skipped"
        raise UserError(f"{count}; the first: {pictures.skipped[0]}")
    return len(pictures)


def _write(summary: Summary, trained: TrainedNetwork, config: DictConfig, out: Path) -> None:
    from camlab.evaluation.scoring.charts import write_charts
    from camlab.evaluation.scoring.report import JSON, PICTURES, TABLE, print_table, write_tables
    from camlab.runs.provenance import provenance, utc_now

    about = {
        "time": utc_now(),
        "network": {"name": trained.name, "checkpoint": None if trained.path is None else str(trained.path)},
        "pictures": {"place": summary.pictures.place, "number": len(summary.pictures), "asked": config.n},
        "settings": {key: _words(config[key]) for key in ("methods", "layers", "scores", "imputers")}
        | {key: config[key] for key in ("steps", "seed", "batch_size", "maps")},
        "left_out": dict(summary.refused),
        **provenance(),
    }
    write_tables(out, summary, about)
    charts = write_charts(out, summary)
    print_table(summary, whole=_words(config.scores) not in (["auto"], ["all"]))
    log.info("Written to %s: %s", plain(str(out)), ", ".join((TABLE, JSON, PICTURES, *charts)))


def _pictures(config: DictConfig, trained: TrainedNetwork) -> tuple[PictureSet, PictureSet | None]:
    """The pictures that are scored and, for a test split with masks, those of validation, if there are any."""
    if trained.multi_label:
        raise UserError("The network may give a picture several labels, but camlab-score takes one label for each.")
    if config.images is not None:
        from camlab.evaluation.scoring.picture_folder import read_folder

        return read_folder(str(config.images), config.n, trained.preprocess, trained.class_names), None
    from hydra.utils import instantiate

    from camlab.evaluation.scoring.picture_set import of_split
    from camlab.evaluation.testing import check_classes

    data = instantiate(config.data)
    if config.data.get("root") is not None:
        # The settings in the run's folder may have chosen this folder.
        log.info("Pictures from %s", plain(str(config.data.root)))
    data.preprocess = trained.preprocess  # prepare pictures as in training, whatever the data section says
    data.setup()
    check_classes(trained, data)
    if data.has_several_labels:
        raise UserError("A picture of these data may have several labels, but camlab-score takes one label for each.")
    if config.split not in data.splits:
        raise UserError(f"split={config.split}: data.val_size=0 leaves no validation images. Choose train or test.")
    chosen = of_split(data.splits[config.split], config.n, f"{data.name} ({config.split})")
    if config.split != "test" or "val" not in data.splits or data.splits["val"].masks is None:
        return chosen, None
    return chosen, of_split(data.splits["val"], config.n, f"{data.name} (val)")


def _request(config: DictConfig) -> Request:
    from camlab.attribution.methods import METHODS
    from camlab.evaluation.scoring.request import Request

    methods, scores = _words(config.methods), _words(config.scores)
    return Request(
        methods=None if methods == ["auto"] else tuple(METHODS) if methods == ["all"] else tuple(methods),
        layers=tuple(_words(config.layers)),
        scores=SCORES_OF_AUTO if scores == ["auto"] else SCORES if scores == ["all"] else tuple(dict.fromkeys(scores)),
        imputers=tuple(dict.fromkeys(_words(config.imputers))),
        steps=config.steps,
        seed=config.seed,
        batch_size=config.batch_size,
    )


def _words(value: Any) -> list[str]:
    """The words of a setting that is a word, a list of words, or null."""
    if value is None:
        return []
    return [str(word) for word in value] if isinstance(value, ListConfig) else [str(value)]


if __name__ == "__main__":
    from camlab.score import main as entry  # so that pickled jobs refer to camlab.score, not to __main__

    entry()
