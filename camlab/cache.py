"""Command that lists or removes the cached features on disk: `python -m camlab.cache [action=clear]`."""

import logging

from omegaconf import DictConfig

from camlab.command_line.launch import launch
from camlab.errors import UserError, plain
from camlab.storage.array_store import feature_store

log = logging.getLogger(__name__)


def main() -> None:
    """Run the command `camlab-cache`."""
    launch(cache, "cache")


def cache(config: DictConfig) -> None:
    """List the cached features on disk with their size, or remove them."""
    store = feature_store(config.paths.cache)
    if config.action == "clear":
        folder = store.folder.parent
        if folder.exists() and not store.folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"paths.cache={config.paths.cache}: it holds no cached features; nothing was removed.")
        log.info("%s: %.2f GB cleared.", store.folder, store.clear() / 1e9)
        return
    entries = store.entries()
    for entry in entries:
        log.info("%8.3f GB  %s  %s", entry.num_bytes / 1e9, entry.key[:8], plain(entry.about))
    arrays = "1 array" if len(entries) == 1 else f"{len(entries)} arrays"
    total = sum(entry.num_bytes for entry in entries) / 1e9
    log.info("%s: %s, %.2f GB. action=clear removes them.", store.folder, arrays, total)


if __name__ == "__main__":
    main()
