"""Files that would run code, wherever camlab reads one: refused with a clear word, and nothing runs."""

import hashlib
import json
import pickle
import sys

import numpy as np
import torch
from test_bad_input import Trap, command, trap  # noqa: F401  (fixtures)
from test_entries import TINY

from camlab import explain, train
from camlab.runs import run_folder
from camlab.storage.array_store import ArrayStore

QUICK = [*TINY, "logger=csv", "hydra.run.dir=run"]


def test_code_in_a_checkpoint_to_resume_is_refused(command, tmp_path, trap):  # noqa: F811
    torch.save({"state_dict": trap}, tmp_path / "x.ckpt")
    assert "only tensors are read" in command(train.main, *QUICK, f"resume={tmp_path / 'x.ckpt'}")
    (tmp_path / "x.ckpt").write_bytes(pickle.dumps(trap))
    assert "resume=" in command(train.main, *QUICK, f"resume={tmp_path / 'x.ckpt'}")


def test_code_in_a_runs_own_last_checkpoint_is_refused(command, tmp_path, trap):  # noqa: F811
    last = tmp_path / "run" / run_folder.LAST
    last.parent.mkdir(parents=True)
    torch.save({"state_dict": trap}, last)
    assert "only tensors are read" in command(train.main, *QUICK)


def test_code_in_a_checkpoint_to_explain_is_refused(command, tmp_path, trap):  # noqa: F811
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "p.png")
    torch.save({"camlab": trap}, tmp_path / "x.ckpt")
    told = command(explain.main, f"images={tmp_path / 'p.png'}", f"checkpoint={tmp_path / 'x.ckpt'}", "out=out")
    assert "only tensors are read" in told


def test_a_checkpoint_of_another_network_is_refused(command, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(sys, "argv", ["camlab", *QUICK, "debug=fast", "hydra.run.dir=other", "arch.cam_channels=6"])
    train.main()
    told = command(train.main, *QUICK, "resume=other")
    assert "it is of another network (cam_channels=6)" in told


def test_code_in_a_cached_array_is_not_run(tmp_path, trap, caplog):  # noqa: F811
    store, shape = ArrayStore(tmp_path / "cache"), (2, 3)
    rows = np.arange(6, dtype=np.float32).reshape(shape)
    store.get("key", shape, lambda: [rows], "six numbers")
    np.save(tmp_path / "cache" / "key.npy", np.array([trap], dtype=object), allow_pickle=True)
    content = (tmp_path / "cache" / "key.npy").read_bytes()
    entry = json.loads((tmp_path / "cache" / "key.json").read_text())
    entry |= {"num_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (tmp_path / "cache" / "key.json").write_text(json.dumps(entry))
    assert np.array_equal(store.get("key", shape, lambda: [rows], "six numbers"), rows)
    assert "is damaged: computing it again" in caplog.text
