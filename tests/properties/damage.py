"""Ways to damage a file, from a flipped bit to a file that an attacker has made, and strategies that draw them."""

import io
import json
import os
import pickle
import shutil
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import yaml
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

TRACE = "code-ran"  # the folder that code makes in the working directory, if it ever runs

VALUES: list[Any] = [
    None, True, -1, 0, 7, 2**31, 10**30, 0.5, float("nan"), float("inf"), "", "x", "[/b]", "$_$", "../../x", "/etc/passwd",
    "${oc.env:HOME}", "\ud800", "a" * 300, "a\nb", "imagenet", [], {}, [[]], ["a", "a"], [1, 2], {"a": 1},
    {"_target_": "os.mkdir", "path": TRACE}, {"_target_": "torch.load", "f": "others/evil.pth", "weights_only": False},
]  # fmt: skip
TEXTS = {
    "brackets": "[" * 100_000,
    "braces": '{"a":' * 100_000,
    "closed brackets": "[" * 50_000 + "]" * 50_000,
    "a list": "[1, 2]",
    "a number": "1e999",
    "NaN": "NaN",
    "NUL": "\0\0\0",
    "a surrogate": '{"metrics": {"test/acc": "\\ud800"}, "objective": "\\ud800", "epochs": 1, "wall_time_s": 1}',
    "no metrics": '{"metrics": {}, "objective": 0.5, "epochs": 1, "wall_time_s": 1}',
    "null metrics": '{"metrics": {"test/acc": null}, "objective": null, "epochs": null, "wall_time_s": null}',
    "huge numbers": f'{{"metrics": {{"test/acc": 1{"0" * 400}}}, "objective": 1, "epochs": 1{"0" * 5000}, "wall_time_s": 1}}',
    "code in YAML": f"!!python/object/apply:os.mkdir [{TRACE}]",
    "code as data": "data: {_target_: torch.load, f: others/evil.pth, weights_only: false}",
    "a file's defaults": "defaults: [../others/evil]\ndata: ../others/evil",
    "a bomb of aliases": "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(
        f"{b}: &{b} [{', '.join(f'*{a}' for _ in range(9))}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)
    ),
    "a loop of aliases": "data: &a [*a]",
    "a long field": "epoch,step,val/acc\n1,2," + "9" * 200_000 + "\n",
    "ragged rows": 'epoch,step,val/acc\n1\n1,2,3,4,5\n,,\n"1,2\n',
    "rows of nonsense": "epoch,val/acc,[/b]\nnan,inf,-inf\n1e400,x,y\n",
    "the wrong encoding": "\udce9poch,\udcff\n1,2\n",
}
OTHERS = [
    "best.ckpt",
    "resumable.ckpt",
    "squeezenet.pth",
    "features.safetensors",
    "result.json",
    "config.yaml",
    "rows.npy",
    "p.png",
]
TENSORS = [
    "int8", "float64", "bool", "complex64", "bfloat16", "nan", "inf", "huge", "shape", "empty", "scalar", "sparse", "quantized", "meta", "expanded",
]  # fmt: skip


@dataclass(frozen=True)
class Surroundings:
    """Where damage is done: the root of the tree, and a folder of whole files of every kind."""

    root: Path
    whole: Path


class Trap:
    """Unpickling this leaves a trace."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (TRACE,)


@dataclass(frozen=True)
class Damage:
    """A way to damage a file. `about_bytes` tells that a checksum would reveal it."""

    def apply(self, path: Path, around: Surroundings) -> None:
        """Damage the file; it may be missing, and then only something new can take its place."""
        raise NotImplementedError


@dataclass(frozen=True)
class Flip(Damage):
    """Flips bits at some places, which count from the end if they are negative."""

    places: tuple[int, ...]
    mask: int

    def apply(self, path: Path, around: Surroundings) -> None:
        content = bytearray(_bytes(path))
        for place in self.places if content else ():
            content[place % len(content)] ^= self.mask
        path.write_bytes(content)


@dataclass(frozen=True)
class Cut(Damage):
    """Keeps a share of the file."""

    share: float

    def apply(self, path: Path, around: Surroundings) -> None:
        content = _bytes(path)
        path.write_bytes(content[: int(self.share * len(content))])


@dataclass(frozen=True)
class Append(Damage):
    content: bytes

    def apply(self, path: Path, around: Surroundings) -> None:
        path.write_bytes(_bytes(path) + self.content)


@dataclass(frozen=True)
class Fill(Damage):
    """Other bytes instead of the file."""

    content: bytes

    def apply(self, path: Path, around: Surroundings) -> None:
        path.write_bytes(self.content)


@dataclass(frozen=True)
class Text(Damage):
    """One of `TEXTS` instead of the file."""

    name: str

    def apply(self, path: Path, around: Surroundings) -> None:
        path.write_text(TEXTS[self.name], encoding="utf-8", errors="surrogateescape")


@dataclass(frozen=True)
class Other(Damage):
    """A whole file of another run, or of another kind."""

    name: str

    def apply(self, path: Path, around: Surroundings) -> None:
        shutil.copyfile(around.whole / self.name, path)


@dataclass(frozen=True)
class Special(Damage):
    """No file: nothing, a folder, a pipe, or a link."""

    kind: str
    KINDS: ClassVar = [
        "missing",
        "folder",
        "pipe",
        "link to itself",
        "link to nothing",
        "link to others' file",
        "link to /dev/zero",
    ]

    def apply(self, path: Path, around: Surroundings) -> None:
        path.unlink(missing_ok=True)
        if self.kind == "folder":
            path.mkdir()
        elif self.kind == "pipe":
            os.mkfifo(path)
        elif self.kind != "missing":
            goals = {
                "link to itself": path,
                "link to nothing": around.root / "others" / "nothing",
                "link to others' file": around.root / "others" / "precious.ckpt",
                "link to /dev/zero": Path("/dev/zero"),
            }
            path.symlink_to(goals[self.kind])


@dataclass(frozen=True)
class Code(Damage):
    """A pickle that runs code when it is loaded: as it is, as torch writes it today or wrote it once, or in an array."""

    form: str
    FORMS: ClassVar = ["pickle", "zip", "legacy", "array"]

    def apply(self, path: Path, around: Surroundings) -> None:
        if self.form == "pickle":
            path.write_bytes(pickle.dumps(Trap()))
        elif self.form == "array":
            buffer = io.BytesIO()
            np.save(buffer, np.array([Trap()], dtype=object), allow_pickle=True)
            path.write_bytes(buffer.getvalue())
        else:
            content = {"state_dict": Trap(), "camlab": Trap()}
            torch.save(content, path, _use_new_zipfile_serialization=self.form == "zip")


@dataclass(frozen=True)
class Edit(Damage):
    """Another value somewhere in a whole YAML, JSON or torch file; no value takes the place out of it.

    Attributes:
        way: Numbers of the children from the top to the place, each modulo how many there are.
        value: Index in `VALUES`; None removes.
    """

    way: tuple[int, ...]
    value: int | None

    def apply(self, path: Path, around: Surroundings) -> None:
        content = _load(path)
        node = content
        for number in self.way[:-1]:
            child = _children(node)[number % len(_children(node))]
            if not _children(node[child]):
                break
            node = node[child]
        child = _children(node)[self.way[-1] % len(_children(node))]
        if self.value is None:
            del node[child]
        else:
            node[child] = VALUES[self.value]
        _save(content, path)


@dataclass(frozen=True)
class Tensors(Damage):
    """One tensor of a torch file, of another type, shape or with other numbers."""

    number: int
    change: str

    def apply(self, path: Path, around: Surroundings) -> None:
        content = _load(path)
        state = content.get("state_dict", content)
        names = [name for name, value in state.items() if isinstance(value, torch.Tensor) and value.is_floating_point()]
        name = names[self.number % len(names)]
        state[name] = _changed(state[name], self.change)
        _save(content, path)


def _changed(tensor: torch.Tensor, change: str) -> torch.Tensor:
    if change in ("nan", "inf", "huge"):
        tensor = tensor.clone()
        tensor.view(-1)[0] = {"nan": float("nan"), "inf": float("inf"), "huge": 3e38}[change]
        return tensor
    changes = {
        "shape": lambda: torch.cat([tensor, tensor]),
        "empty": lambda: tensor[:0],
        "scalar": lambda: tensor.sum(),
        "sparse": lambda: tensor.to_sparse(),
        "quantized": lambda: torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.qint8),
        "meta": lambda: tensor.to("meta"),
        "expanded": lambda: tensor.reshape(-1)[:1].expand(tensor.numel()).reshape(tensor.shape),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch means to drop quantized tensors, which old files still hold
        return changes[change]() if change in changes else tensor.to(getattr(torch, change))


def _children(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return list(node)
    return list(range(len(node))) if isinstance(node, list) else []


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _load(path: Path) -> Any:
    if path.suffix == ".json":
        return json.loads(path.read_text())
    if path.suffix == ".yaml":
        return yaml.safe_load(path.read_text())
    if path.suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, weights_only=True)


def _save(content: Any, path: Path) -> None:
    if path.suffix == ".json":
        path.write_text(json.dumps(content))
    elif path.suffix == ".yaml":
        head = "".join(line for line in path.read_text().splitlines(keepends=True) if line[0] == "#")
        path.write_text(head + yaml.safe_dump(content), errors="surrogatepass")
    elif path.suffix == ".safetensors":
        save_file({name: value.contiguous() for name, value in content.items()}, path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=zipfile.is_zipfile(path))


# ---- strategies

places = st.one_of(st.integers(0, 4095), st.integers(-4096, -1), st.integers(0, 2**24))
flips = st.builds(Flip, st.lists(places, min_size=1, max_size=6).map(tuple), st.integers(1, 255))
cuts = st.builds(Cut, st.sampled_from([0.0, 0.01, 0.5, 0.9, 0.999]))
specials = st.builds(Special, st.sampled_from(Special.KINDS))
others = st.builds(Other, st.sampled_from(OTHERS))
fills = st.builds(Fill, st.binary(max_size=64)) | st.builds(Append, st.binary(min_size=1, max_size=64))
texts = st.builds(Text, st.sampled_from(sorted(TEXTS)))
codes = st.builds(Code, st.sampled_from(Code.FORMS))
edits = st.builds(
    Edit,
    st.lists(st.integers(0, 99), min_size=1, max_size=5).map(tuple),
    st.none() | st.integers(0, len(VALUES) - 1),
)
tensors = st.builds(Tensors, st.integers(0, 99), st.sampled_from(TENSORS))


def damages(ending: str) -> st.SearchStrategy[Damage]:
    """Ways to damage a file with an ending."""
    anything = [flips, flips, cuts, specials, others, fills]
    more = {
        ".ckpt": [codes, edits, edits, tensors],
        ".pth": [codes, tensors, tensors, flips],
        ".safetensors": [tensors],
        ".yaml": [texts, edits, edits],
        ".json": [texts, edits, edits],
        ".csv": [texts, texts],
        ".npy": [codes],
    }
    return st.one_of(*anything, *more.get(ending, [texts]))
