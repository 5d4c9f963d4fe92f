"""Provenance of a result: versions, commit and time."""

import functools
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "torchvision", "lightning", "hydra-core", "omegaconf", "wandb", "torchmetrics")


@functools.cache
def provenance() -> dict[str, Any]:
    """Return what is needed to reproduce a result: the versions of Python and packages, and the git commit."""
    versions = {name: version(name) for name in _PACKAGES}
    return {"versions": {"python": platform.python_version(), **versions}, "git_commit": _git_commit()}


def utc_now() -> str:
    """Return the current time in UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _git_commit() -> str | None:
    """Commit of the checkout that camlab runs from, with `-dirty` if it has changes; None outside a checkout."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
