"""Identity of the data that a run was trained on, which does not depend on where the data are stored."""

import functools
import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from camlab.errors import UserError, listed
from camlab.runs import run_folder
from camlab.storage.files import write_atomically
from camlab.storage.tree import Tree

DATA = "data.json"
_PARTS = ("train", "val", "test", "cifar-10-batches-py")  # folders of data=folder and data=cifar10
_BESIDE = "masks"  # folder beside them that belongs to the data, too


@dataclass(frozen=True)
class DataIdentity:
    """Identity of a run's data, the content of `data.json`.

    Attributes:
        fingerprint: Hash of the pictures and labels of all splits.
        class_names: Names of the classes, in the order of the network's outputs.
        root: Absolute path of the folder that the data were read from; None for generated data. It is ignored when data
            are compared, because they may be moved.
        files: Hash of the names, sizes and modification times of the files in that folder, which reveals a change
            without reading the files; None for generated data.
    """

    fingerprint: str
    class_names: tuple[str, ...]
    root: str | None = None
    files: str | None = None

    def same_as(self, other: "DataIdentity") -> bool:
        """Whether two runs see the same pictures under the same labels."""
        return (self.fingerprint, self.class_names) == (other.fingerprint, other.class_names)


def data_root(data_config: Mapping[str, Any]) -> str | None:
    """Return the absolute path of the folder that a configuration's `data` section names; None if it names none.

    A data set of Hugging Face's that is no local folder has its name on the hub instead.

    Example:
        >>> data_root({"name": "folder", "root": "/photos/../pets"})
        '/pets'
        >>> data_root({"name": "table", "root": None, "file": "/pets/cats.csv"})
        '/pets'
        >>> data_root({"name": "shapes"}) is None
        True
    """
    root, file, path = (data_config.get(key) for key in ("root", "file", "path"))
    if root is None and file is not None:
        return str(_resolved(file).parent)
    if root is None and path is not None:
        return str(_resolved(path)) if os.path.exists(os.path.expanduser(str(path))) else str(path)
    return None if root is None else str(_resolved(root))


def hash_of_files(data_config: Mapping[str, Any]) -> str | None:
    """Hash of the files that a configuration's `data` section names, as `files_hash` computes it.

    If it names a table or a Parquet file, all files in that file's folder count.
    """
    named = [data_config.get(key) for key in ("file", "annotations")]
    others = tuple(str(_resolved(file)) for file in named if file is not None)
    root, whole = data_root(data_config), data_config.get("file") is not None
    if root is not None and os.path.isfile(root):
        root, others, whole = os.path.dirname(root), (root, *others), True
    return files_hash(root, others, whole)


@functools.cache
def files_hash(root: str | None, others: tuple[str, ...] = (), whole: bool = False) -> str | None:
    """Hash of the names, sizes and modification times of the files of a data set, 16 hex digits; None without a folder.

    The result is cached, so each command reads the folder once.

    Args:
        root: Folder of the data. If it contains the folders of `data=folder` or `data=cifar10`, only the files in
            those, and in `masks`, count.
        others: Further files and folders that belong to the data.
        whole: Whether all files in the folder count.
    """
    if root is None:
        return None
    parts = [] if whole else [part for part in (os.path.join(root, name) for name in _PARTS) if os.path.isdir(part)]
    tops = [*parts, os.path.join(root, _BESIDE)] if parts else [root]
    digest, tree = hashlib.sha256(), Tree()
    for file in (file for file in others if os.path.isfile(file)):
        status = os.stat(file)
        digest.update(repr((status.st_size, status.st_mtime_ns)).encode())
    for top in [*tops, *(other for other in others if os.path.isdir(other))]:
        for folder, names in tree.walk(top, hidden=True):
            for path in (os.path.join(folder, name) for name in names):
                with suppress(OSError):
                    status = os.stat(path)
                    about = (os.path.relpath(path, root), status.st_size, status.st_mtime_ns)
                    digest.update(repr(about).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def _resolved(path: Any) -> Path:
    return Path(os.path.expanduser(str(path))).resolve()


def write_data_identity(run_dir: Path, identity: DataIdentity) -> None:
    """Write the identity of a run's data to the run's folder."""
    write_atomically(run_dir / DATA, json.dumps(asdict(identity), indent=2) + "\n")


def read_data_identity(run_dir: Path) -> DataIdentity | None:
    """Read the identity of a run's data from the run's folder; None if it is not recorded there or is damaged."""
    content = run_folder.read_object(run_dir / DATA) or {}
    names, root, files = (content.get(key) for key in ("class_names", "root", "files"))
    if not isinstance(names, list) or not all(isinstance(text, str) for text in (content.get("fingerprint"), *names)):
        return None
    return DataIdentity(
        content["fingerprint"],
        tuple(names),
        root if isinstance(root, str) else None,
        files if isinstance(files, str) else None,
    )


def check_same_data(run_dir: Path, identity: DataIdentity) -> None:
    """Refuse a folder that holds a run on other data, or on unknown data; a run without output does not count.

    Raises:
        UserError: The folder holds a run on other data, or its `data.json` is missing or damaged.
    """
    found = read_data_identity(run_dir)
    if not run_folder.has_output(run_dir) or (found is not None and found.same_as(identity)):
        return
    if found is None:
        raise UserError(
            f"{run_dir / DATA} is missing or damaged, so it is unknown which data the run used; nothing was trained.",
            "Give another out=FOLDER; to replace that run with a new one, add force=true.",
        )
    where = f" from {found.root}" if found.root and found.root != identity.root else ""
    if found.root and found.root == identity.root and found.class_names == identity.class_names:
        where = f": the files in {found.root} have changed since"
    if found.class_names != identity.class_names:
        where += f" (classes {listed(found.class_names, 5)})"
    raise UserError(
        f"{run_dir} holds a run on other data{where}.",
        "Give another out=FOLDER; to replace that run with a new one, add force=true.",
    )
