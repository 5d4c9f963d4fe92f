"""A run's folder: its files, whether the run in it is finished, and the checkpoint that training resumes from."""

import hashlib
import itertools
import json
import logging
import math
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from camlab.errors import UserError
from camlab.storage import documents, locks
from camlab.storage.files import read_text, remove_leftovers, write_atomically

log = logging.getLogger(__name__)

CONFIG, RESULT = "config.yaml", "result.json"
LAST, BEFORE_LAST, BEST = (f"checkpoints/{name}.ckpt" for name in ("last", "before_last", "best"))
NOT_FINITE = "checkpoints/not_finite.ckpt"
METRICS, HEATMAPS, VIEWER, FAILURE = "metrics.csv", "heatmaps", "heatmaps.html", "failure.json"
AUGMENTATION = "augmentation.png"
_HEATMAP = re.compile(r"(pictures|masks)/\d+\.png|epoch_\d+/(\d+\.jpg|sheet\.png|maps\.npz)")
_CHECKSUM_LINE, _HASH_LINE, _RUN_LINE = "# sha256: ", "# config_hash: ", "# run_id: "
_TRACKERS = ("wandb", "tensorboard")  # folders of what the trackers log
_RANKS = {"WORLD_SIZE": ("RANK", "LOCAL_RANK"), "SLURM_NTASKS": ("SLURM_PROCID",)}  # of torchrun, Lightning, SLURM


def write_config(run_dir: Path, yaml: str, config_hash: str, run_id: str = "") -> None:
    """Record the resolved configuration of a run that begins or continues, after lines with its hash and the run's id.

    An earlier result is removed, because it may belong to another configuration.
    """
    (run_dir / RESULT).unlink(missing_ok=True)
    write_atomically(run_dir / CONFIG, with_checksum(f"{_HASH_LINE}{config_hash}\n{_RUN_LINE}{run_id}\n{yaml}"))


def with_checksum(content: str) -> str:
    """Put a line with the checksum of a text before it, which reveals later changes of `config.yaml`."""
    return f"{_CHECKSUM_LINE}{hashlib.sha256(content.encode()).hexdigest()}\n{content}"


def read_config(run_dir: Path) -> Any:
    """Read the configuration that the run in a folder has recorded, as plain values.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is damaged, or has been changed since the run wrote it.
    """
    return documents.parse_yaml(_config_text(run_dir))


def is_config_changed(run_dir: Path) -> bool:
    """Whether the configuration in a folder is damaged, or has been changed since the run wrote it."""
    try:
        _config_text(run_dir)
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True
    return False


def read_config_hash(run_dir: Path) -> str | None:
    """Hash of the configuration that the run in a folder was started with.

    None if no run was started there, or if the configuration has been changed since.
    """
    return _read_line(run_dir, _HASH_LINE)


def read_run_id(run_dir: Path) -> str | None:
    """Id of the run in a folder, which its checkpoints contain, too; None if it is unknown."""
    return _read_line(run_dir, _RUN_LINE) or None


def folder_of(checkpoint: Path) -> Path | None:
    """Folder of the run that a checkpoint lies in: at the path itself, or one or two folders above; None if none."""
    folders = (checkpoint, *checkpoint.absolute().parents[:2])
    return next((folder for folder in folders if (folder / CONFIG).is_file()), None)


def _config_text(run_dir: Path) -> str:
    """Content of `config.yaml` below its checksum.

    Raises:
        OSError: The file cannot be read.
        ValueError: The content does not have this checksum.
    """
    text = read_text(run_dir / CONFIG)
    content = text.partition("\n")[2]
    if text != with_checksum(content):
        raise ValueError("changed since the run wrote it")
    return content


def _read_line(run_dir: Path, start: str) -> str | None:
    try:
        head = _config_text(run_dir).split("\n", 2)[:2]
    except (OSError, ValueError):
        return None
    return next((line.removeprefix(start) for line in head if re.fullmatch(rf"{start}\S+", line)), None)


def read_result(run_dir: Path) -> dict[str, Any] | None:
    """Content of `result.json` of a finished run.

    None if it is missing, lacks a value that every run measures, or belongs to another configuration than the folder's.
    """
    result, own = read_object(run_dir / RESULT) or {}, read_config_hash(run_dir)
    if own is not None and result.get("config_hash", own) != own:
        return None
    metrics = result.get("metrics")
    numbers = [result.get(name) for name in ("objective", "epochs", "wall_time_s")]
    if not isinstance(metrics, dict) or not all(map(_is_number, [*numbers, *metrics.values()])):
        return None
    if not all(math.isfinite(number or 0) for number in numbers):
        return None
    return result if {"test/acc", "val/best_acc"} & metrics.keys() else None


def write_result(run_dir: Path, result: dict[str, Any]) -> None:
    """Write `result.json`, which declares the run finished."""
    write_atomically(run_dir / RESULT, json.dumps(result, indent=2) + "\n")


@dataclass(frozen=True)
class Failure:
    """Reason why a run ended without a result.

    Attributes:
        message: The reason in one line or two.
        by_user: Whether the user can correct the mistake, on the command line or in the data.
        traceback: Traceback of the error; empty for a mistake of the user.
        mark: Random text that distinguishes this failure from earlier ones of the same job.
    """

    message: str
    by_user: bool
    traceback: str = ""
    mark: str = field(default_factory=lambda: secrets.token_hex(8), compare=False)


def write_failure(run_dir: Path, failure: Failure) -> None:
    """Record in a run's folder that the run failed; the next start of the run removes this record."""
    write_atomically(run_dir / FAILURE, json.dumps(asdict(failure), indent=2) + "\n")


def read_failure(run_dir: Path) -> Failure | None:
    """The recorded failure of a run; None if there is none or the record is damaged."""
    try:
        failure = Failure(**{"mark": "", **(read_object(run_dir / FAILURE) or {})})
    except TypeError:
        return None
    texts = (failure.message, failure.traceback, failure.mark)
    return failure if all(isinstance(text, str) for text in texts) and isinstance(failure.by_user, bool) else None


def forget(run_dir: Path, replaces: bool) -> None:
    """Remove the output of a run, so that it starts again from the beginning, and log the names; other files stay.

    Args:
        run_dir: Folder of the run.
        replaces: Whether another run takes its place, so that the trackers must not join the two. What it has logged
            is kept under another name, because it may not have been uploaded yet.
    """
    for tracker in (run_dir / name for name in _TRACKERS if replaces and (run_dir / name).is_dir()):
        kept = next(p for i in itertools.count(1) if not os.path.lexists(p := run_dir / f"{tracker.name}.replaced-{i}"))
        tracker.rename(kept)
        log.info("%s of the run that is replaced was renamed to %s.", tracker, kept.name)
    removed = output_files(run_dir)
    if not removed:
        return
    pictures = [path for path in removed if path.is_relative_to(run_dir / HEATMAPS)]
    names = [str(path.relative_to(run_dir)) for path in removed if path not in pictures]
    names += [f"{len(pictures)} files in {HEATMAPS}/"] if pictures else []
    why = "force=true" if replaces else "Starting again, because there is no checkpoint"
    log.info("%s: removing %s in %s.", why, ", ".join(names), run_dir)
    for path in removed:
        path.unlink(missing_ok=True)
    for folder in {path.parent for path in pictures}:
        with suppress(OSError):  # the folder also holds other files
            folder.rmdir()


def output_files(run_dir: Path) -> list[Path]:
    """List the existing files of a run's output: those whose names are the ones that camlab gives."""
    names = [RESULT, FAILURE, METRICS, VIEWER, AUGMENTATION]
    for checkpoint in (LAST, BEFORE_LAST, BEST, NOT_FINITE):
        names += [checkpoint, f"{checkpoint}.sha256"]
    names.append(str(Path(NOT_FINITE).with_suffix(".json")))
    folders = [folder for folder in (run_dir / HEATMAPS).glob("*") if folder.is_dir() and not folder.is_symlink()]
    drawn = (path for folder in folders for path in folder.iterdir())
    heatmaps = [path for path in drawn if _HEATMAP.fullmatch(f"{path.parent.name}/{path.name}")]
    return [path for path in (*(run_dir / name for name in names), *sorted(heatmaps)) if os.path.lexists(path)]


def has_output(run_dir: Path) -> bool:
    """Whether a run in this folder has produced anything yet."""
    return any((run_dir / name).exists() for name in (RESULT, LAST, BEST, METRICS, HEATMAPS))


class Busy(UserError):
    """Another process is training in the folder."""


def is_further_rank() -> bool:
    """Whether this process is one of a distributed run, but not its first.

    A rank without a number of processes comes from the surroundings, such as a shell within `srun`, and says nothing.
    """
    ranks = ((name, size) for size, names in _RANKS.items() for name in names)
    return any(os.environ.get(name, "0") != "0" and os.environ.get(size, "1") != "1" for name, size in ranks)


def check_rank(is_first: bool) -> None:
    """Refuse to go on if the environment and the trainer disagree on which process this is.

    Args:
        is_first: Whether the trainer takes this process for the first one.

    Raises:
        UserError: They disagree; the process would write into a folder that it has not prepared.
    """
    if is_first == is_further_rank():
        found = ", ".join(f"{n}={os.environ[n]}" for names in _RANKS.values() for n in names if n in os.environ)
        raise UserError(f"{found}: this process is not part of a distributed run. Unset these variables.")


@contextmanager
def locked(run_dir: Path, wait: bool) -> Iterator[None]:
    """Keep other processes out of a run's folder. Of a distributed run only rank 0 holds the lock, for all ranks.

    Args:
        run_dir: Folder of the run.
        wait: Wait until the folder is free, instead of raising.

    Raises:
        Busy: Another process is training in the folder, and `wait` is False.
    """
    if is_further_rank():
        yield
        return
    notice = f"{run_dir}: another process is training there; waiting for it."
    try:
        with locks.locked(run_dir / ".lock", wait, notice):
            for folder in (run_dir, run_dir / Path(LAST).parent):
                remove_leftovers(folder)
            yield
    except locks.Locked:
        raise Busy(f"{run_dir}: another process is training there. Give another out=FOLDER.") from None


def read_object(path: Path) -> dict[str, Any] | None:
    """Content of a JSON file that holds an object; None if it is missing or damaged."""
    try:
        content = documents.read_json(path)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _is_number(value: Any) -> bool:
    """Whether a value of a JSON file is a number that a float can hold."""
    return isinstance(value, float) or (type(value) is int and abs(value) < 2**63)
