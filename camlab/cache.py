"""Command that lists or removes what is cached on disk, features and decoded pictures: `python -m camlab.cache`."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from camlab.command_line.launch import launch
from camlab.errors import UserError, plain
from camlab.storage import record_store
from camlab.storage.array_store import ArrayStore, feature_store
from camlab.storage.cache_folder import check_marked, size_text
from camlab.storage.record_store import pictures_folder

log = logging.getLogger(__name__)


def main() -> None:
    """Run the command `camlab-cache`."""
    launch(cache, "cache")


def cache(config: DictConfig) -> None:
    """List the cached features and decoded pictures on disk with their size, or remove them."""
    features, pictures = feature_store(config.paths.cache), pictures_folder(config.paths.cache)
    if config.action == "clear":
        _clear(config.paths.cache, features, pictures)
        return
    entries = [(entry.num_bytes, entry.key, entry.about) for entry in features.entries()]
    entries += [(num_bytes, key, about) for key, about, num_bytes in record_store.stores(pictures)]
    for num_bytes, key, about in entries:
        log.info("%9s  %s  %s", size_text(num_bytes), key[:8], plain(about))
    count = "1 entry" if len(entries) == 1 else f"{len(entries)} entries"
    total = size_text(sum(num_bytes for num_bytes, _, _ in entries))
    log.info("%s: %s, %s. action=clear removes them.", features.folder.parent, count, total)


def _clear(given: str, features: ArrayStore, pictures: Path) -> None:
    folder, there = pictures.parent, [place for place in (features.folder, pictures) if place.exists()]
    if folder.exists() and not there and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"paths.cache={given}: it holds nothing that camlab has cached; nothing was removed.")
    for place in there:
        check_marked(place)
    freed = features.clear() + record_store.clear(pictures)
    log.info("%s: %s cleared.", folder, size_text(freed))


if __name__ == "__main__":
    main()
