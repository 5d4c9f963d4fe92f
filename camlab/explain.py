"""Heatmaps of one's own pictures: `python -m camlab.explain images=photos/ network=resnet50` (Hydra entry)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig

from camlab.command_line.launch import launch
from camlab.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import torch

    from camlab.models.trained_network import TrainedNetwork

log = logging.getLogger(__name__)


def main() -> None:
    """Entry of `camlab-explain`."""
    launch(explain, "explain")


def explain(config: DictConfig) -> int:
    """Overlays, maps, predictions, boxes and a contact sheet in Hydra's folder for the job (`out`).

    Returns:
        How many pictures were explained.

    Raises:
        UserError: bad input, or pictures that could not be read (after all the others are done).
    """
    from camlab.storage.pictures import find_pictures

    if (config.checkpoint is None) == (config.network.name is None):
        raise UserError("Which network? Give checkpoint=RUN, or network=NAME (vgg16, resnet50, …), one of them.")
    files = find_pictures(str(config.images))

    from camlab.drawing.album import Style, make_album

    device = _device(config.device)
    trained = _trained(config)
    if config.checkpoint is None and config.network.weights is None:
        log.warning("network.weights=null: the network knows nothing, its heatmaps mean nothing.")
    style = Style(
        methods=None if config.methods in ("auto", None) else _words(config.methods),
        layers=None if config.layer is None else _words(config.layer),
        target=_target(str(config.target), trained.class_names),
        top_k=config.top_k,
        normalize=config.normalize,
        counterfactual=config.counterfactual,
        boxes=config.boxes,
        alpha=config.alpha,
    )
    out = Path(HydraConfig.get().runtime.output_dir)
    album = make_album(trained, files, out, style, config.batch_size, device)
    log.info("%d pictures explained. Open %s", album.done, album.sheet)
    if album.broken:
        raise UserError(f"{len(album.broken)} of {len(files)} pictures were skipped; the first: {album.broken[0]}")
    return album.done


def _trained(config: DictConfig) -> TrainedNetwork:
    if config.checkpoint is not None:
        from camlab.training.checkpoint import load_network

        return load_network(Path(config.checkpoint).expanduser())
    from camlab.models import catalog

    return catalog.from_name(config.network.name, config.network.weights)


def _device(name: str) -> torch.device | None:
    import torch

    from camlab.models.devices import check_accelerator

    if name == "auto":
        return None
    check_accelerator(name, "device")
    gpu = "cuda" if torch.cuda.is_available() else "mps"
    return torch.device(gpu if name == "gpu" else name)


def _words(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, ListConfig) else (str(value),)


def _target(given: str, class_names: tuple[str, ...]) -> int | None:
    """The index of a class given by name or index; None for `auto`."""
    if given == "auto":
        return None
    if given in class_names:
        return class_names.index(given)
    if given.isdecimal() and int(given) < len(class_names):
        return int(given)
    hint = did_you_mean(given, class_names)
    raise UserError(f"target={given}: no such class. {hint}Give auto, a name or an index below {len(class_names)}.")


if __name__ == "__main__":
    from camlab.explain import main as entry  # under a name that other processes can import, not as __main__

    entry()
