"""Identity of the data that a run was trained on: a part of the run, wherever the data lie."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from camlab.errors import UserError, listed
from camlab.runs import run_folder
from camlab.storage.files import write_atomically

DATA = "data.json"


@dataclass(frozen=True)
class DataIdentity:
    """The data of a run, as `data.json` keeps it.

    Attributes:
        fingerprint: Hash of the pictures and labels of all splits.
        class_names: Names of the classes, in the order of the network's outputs.
        root: Absolute path of the folder that the data were read from; None for drawn data. It does not count when
            data are compared: they may move.
    """

    fingerprint: str
    class_names: tuple[str, ...]
    root: str | None = None

    def same_as(self, other: "DataIdentity") -> bool:
        """Whether two runs see the same pictures under the same labels."""
        return (self.fingerprint, self.class_names) == (other.fingerprint, other.class_names)


def data_root(data_config: Mapping[str, Any]) -> str | None:
    """Absolute path of the folder that a configuration's `data` section names; None if it names none.

    Example:
        >>> data_root({"name": "folder", "root": "/photos/../pets"})
        '/pets'
        >>> data_root({"name": "shapes"}) is None
        True
    """
    root = data_config.get("root")
    return None if root is None else str(Path(str(root)).expanduser().resolve())


def write_data_identity(run_dir: Path, identity: DataIdentity) -> None:
    """Keep the identity of a run's data in its folder."""
    write_atomically(run_dir / DATA, json.dumps(asdict(identity), indent=2) + "\n")


def read_data_identity(run_dir: Path) -> DataIdentity | None:
    """Identity of the data of the run in a folder; None if none is noted there, or the note is damaged."""
    content = run_folder.read_json(run_dir / DATA) or {}
    names, root = content.get("class_names"), content.get("root")
    if not isinstance(names, list) or not all(isinstance(text, str) for text in (content.get("fingerprint"), *names)):
        return None
    return DataIdentity(content["fingerprint"], tuple(names), root if isinstance(root, str) else None)


def check_same_data(run_dir: Path, identity: DataIdentity) -> None:
    """Refuse to go on with, or to report, a run on other data; a run without output does not count.

    Raises:
        UserError: The folder holds a run on other data.
    """
    found = read_data_identity(run_dir)
    if found is None or found.same_as(identity) or not run_folder.has_output(run_dir):
        return
    where = f" from {found.root}" if found.root and found.root != identity.root else ""
    if found.class_names != identity.class_names:
        where += f" (classes {listed(found.class_names, 5)})"
    raise UserError(
        f"{run_dir} holds a run on other data{where}.\n"
        "Give another out=FOLDER; to train anew in place of that run, add force=true."
    )
