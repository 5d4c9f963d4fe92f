"""Command that draws heatmaps of your pictures: `python -m camlab.explain images=photos/ network=resnet50`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf

from camlab.command_line.launch import launch
from camlab.command_line.run_data import is_divided_otherwise
from camlab.errors import UserError, cut, did_you_mean, plain
from camlab.storage.files import user_path

if TYPE_CHECKING:
    from camlab.data.own_pictures import OwnPictures

log = logging.getLogger(__name__)


def main() -> None:
    """Run the command `camlab-explain`."""
    launch(explain, "explain")


def explain(config: DictConfig) -> int:
    """Write overlays, maps, predictions, boxes, a contact sheet and a page to the output folder of the job.

    Returns:
        Number of pictures that were explained.

    Raises:
        UserError: The input is invalid, or some pictures could not be read; this is raised after all others are done.
    """
    out = Path(HydraConfig.get().runtime.output_dir)
    files, true_classes, several, place = _files(config, out)

    from camlab.attribution.batch_explainer import Request
    from camlab.drawing.explain_pictures import explain_pictures
    from camlab.drawing.tiles import Style
    from camlab.models.devices import choose_device
    from camlab.training.given_network import given_network
    from camlab.viewer.html import write_into

    device = choose_device(config.device)
    network = config.network
    trained = given_network(config.checkpoint, network.name, network.weights, network.prefix, config.class_names)
    if config.checkpoint is None and config.network.weights is None:
        log.warning("network.weights=null: the weights are random, so the heatmaps mean nothing.")
    request = Request(
        methods=("auto",) if config.methods is None else _words(config.methods),
        layers=None if config.layer is None else _words(config.layer),
        target=_target(str(config.target), trained.class_names),
        top_k=config.top_k,
        counterfactual=config.counterfactual,
        multi_label=trained.multi_label,
    )
    style = Style(normalize=config.normalize, alpha=config.alpha, colormap=config.colormap, boxes=config.boxes)
    weights = config.network.weights if config.checkpoint is None else None
    about = {"images": place, "checkpoint": config.checkpoint, "weights": weights}
    labels = _labels(true_classes, trained.class_names, several)
    made = explain_pictures(trained, files, out, request, style, config.batch_size, device, about, labels)
    log.info("%d picture%s explained. Open %s", made.done, "" if made.done == 1 else "s", made.sheet or made.folder)
    if page := write_into(out):
        log.info("Browse the heatmaps: open %s in a browser.", page)
    if made.broken:
        count = f"{len(made.broken)} of {len(files)} pictures {'was' if len(made.broken) == 1 else 'were'} skipped"
        raise UserError(f"{count}; the first: {made.broken[0]}")
    return made.done


def _files(config: DictConfig, out: Path) -> tuple[list[Path], list[tuple[str, ...]], bool, str]:
    """The pictures, their classes if they are known, whether each may have several, and where they come from."""
    if config.images is not None:
        from camlab.storage.pictures import find_pictures

        return find_pictures(str(config.images)), [], False, str(config.images)

    from hydra.utils import instantiate

    settings: Any = OmegaConf.to_container(config.data, resolve=True)
    if config.checkpoint is not None and is_divided_otherwise(settings, user_path(config.checkpoint, "checkpoint")):
        log.warning(
            "The run divided these pictures by other settings (data.split, split_seed or val_size), so it may have been"
            " trained on those of split=%s. Without data=, the run's own split is explained.", config.split,
        )  # fmt: skip
    data: OwnPictures = instantiate(config.data)
    log.info("Pictures from %s", plain(data.place))
    return *data.files(config.split, out / "pictures"), data.multi_label, data.place


def _labels(
    true_classes: Sequence[Sequence[str]], class_names: Sequence[str], several: bool
) -> list[int] | list[tuple[int, ...]] | None:
    """Indices of the pictures' classes in the network: one for each picture, or several.

    They are None if the classes are not known, or are others than the network's.
    """
    if other := next((name for own in true_classes for name in own if name not in class_names), None):
        log.warning("True classes are not shown: the network has no class %s.", cut(other))
        return None
    index = [tuple(class_names.index(name) for name in sorted(own, key=class_names.index)) for own in true_classes]
    return (index if several else [label for (label,) in index]) or None


def _words(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, ListConfig) else (str(value),)


def _target(given: str, class_names: tuple[str, ...]) -> int | None:
    """Index of a class that is given by name or index; None for `auto`."""
    if given == "auto":
        return None
    if given in class_names:
        return class_names.index(given)
    if given.isdecimal() and int(given) < len(class_names):
        return int(given)
    hint = did_you_mean(given, class_names)
    raise UserError(f"target={given}: no such class. {hint}Give auto, a name or an index below {len(class_names)}.")


if __name__ == "__main__":
    from camlab.explain import main as entry  # so that pickled jobs refer to camlab.explain, not to __main__

    entry()
