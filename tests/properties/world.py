"""A small world of runs, weights, cached features, pictures and files of others, made once and copied for every test."""

import shutil
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file

from camlab.models.cam_net import CamNet
from camlab.runs import run_folder
from properties.damage import Trap
from properties.forked_command import Kill, run

TINY = (
    "data=shapes", "data.train_size=20", "data.val_size=10", "data.test_size=10", "data.image_size=64", "data.batch_size=8",
    "arch.weights=null", "trainer.max_epochs=2", "trainer.accelerator=cpu", "logger=csv", "callbacks.heatmaps=null",
    "callbacks.scores=null", "mode=frozen",
)  # fmt: skip
PARTS = ("home", "others", "outputs", "cache", "weights", "pictures", "whole")
OF_OTHERS = ("results.npy", "results.tex", "results.csv", "notes.json", "draft.lock")


def make_world(root: Path, logs: Path) -> Path:
    """Two finished runs and a stopped one in `outputs/`, and what else is in `PARTS`."""
    for part in PARTS:
        (root / part).mkdir(parents=True)
    _train(root, logs, "finished")
    _train(root, logs, "neighbour", "seed=1", "arch.cam_channels=4", "cache=false")
    _train(
        root, logs, "stopped", "checkpoint_every=1", kill=Kill("step", 4)
    )  # so that there is a checkpoint before the last
    assert (root / "outputs" / "stopped" / run_folder.BEFORE_LAST).is_file()
    _make_weights(root / "weights")
    for number, name in enumerate("pq"):
        noise = np.random.default_rng(number).integers(0, 256, (30, 40, 3), np.uint8)
        Image.fromarray(noise).save(root / "pictures" / f"{name}.png")
    _gather_whole_files(root)
    _add_files_of_others(root)
    return root


def copy_parts(world: Path, parts: tuple[str, ...], to: Path) -> None:
    """Copy some folders and files of the world; the others' files are always there."""
    for part in ("home", "others", *parts):
        (to / part).parent.mkdir(parents=True, exist_ok=True)
        if (world / part).is_dir():
            shutil.copytree(world / part, to / part)
        else:
            shutil.copyfile(world / part, to / part)


def _train(root: Path, logs: Path, name: str, *arguments: str, kill: Kill | None = None) -> None:
    ended = run("train", [*TINY, f"out=outputs/{name}", *arguments], root, logs, kill)
    assert ended.code == (0 if kill is None else -9), ended


def _make_weights(folder: Path) -> None:
    """Weights of a backbone and of a whole classifier, in each format."""
    torch.manual_seed(0)
    backbone = CamNet("alexnet", num_classes=10, weights=None).backbone
    features = {f"features.{k}": v.contiguous() for k, v in backbone.state_dict().items()}
    squeezenet = torchvision.models.squeezenet1_1(weights=None).state_dict()
    for name, state in (("features", features), ("squeezenet", squeezenet)):
        torch.save(state, folder / f"{name}.pth")
        torch.save(state, folder / f"{name}_legacy.pth", _use_new_zipfile_serialization=False)
        save_file(state, folder / f"{name}.safetensors")


def _gather_whole_files(root: Path) -> None:
    """One whole file of each kind, to be put in the place of another."""
    neighbour = root / "outputs" / "neighbour"
    for source, name in (
        (neighbour / run_folder.BEST, "best.ckpt"),
        (root / "outputs" / "finished" / run_folder.LAST, "resumable.ckpt"),
        (neighbour / run_folder.RESULT, "result.json"),
        (neighbour / run_folder.CONFIG, "config.yaml"),
        (root / "weights" / "squeezenet.pth", "squeezenet.pth"),
        (root / "weights" / "features.safetensors", "features.safetensors"),
        (root / "pictures" / "p.png", "p.png"),
    ):
        shutil.copyfile(source, root / "whole" / name)
    np.save(root / "whole" / "rows.npy", np.zeros((10, 2304), np.float32))


def _add_files_of_others(root: Path) -> None:
    """Files that no command has any business with, beside camlab's and among them."""
    for folder in (root / "others", root / "cache", root / "outputs"):
        for name in OF_OTHERS:
            (folder / name).write_text(f"{name} of somebody else")
    shutil.copyfile(root / "whole" / "best.ckpt", root / "others" / "precious.ckpt")
    torch.save(Trap(), root / "others" / "evil.pth")
    (root / "others" / "evil.yaml").write_text("_target_: torch.load\nf: others/evil.pth\nweights_only: false\n")
