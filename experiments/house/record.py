"""Do two versions of camlab give identical results? Record the output of four small jobs, and compare recordings.

    python experiments/house/record.py RECORDING.json [--checkout FOLDER]
    python experiments/house/record.py --compare BEFORE.json AFTER.json

The jobs are a frozen run with cached features, a fine-tuned run, a run on a folder of pictures, and `camlab.explain`
for photographs with the fine-tuned network. All have fixed seeds and run on the CPU in one thread. A recording contains
hashes of every tensor of the last checkpoint, every raw map and every drawn picture, and all columns of metrics.csv
except the training speed. The jobs run the camlab of this checkout, or of that given with --checkout. The environment
variable CAMLAB_SHARED_DATA names the folder with weights and photographs. Recordings of different machines or versions
of torch may differ by rounding. A recording takes 2 minutes on 2 cores.
"""

import argparse
import csv
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

Part = dict[str, Any]
Recording = dict[str, dict[str, Part]]  # job → part (weights, metrics, …) → name → content or its hash

COMMON = ["logger=csv", "seed=3", "data.image_size=96", "data.batch_size=32", "trainer.accelerator=cpu"]
SHAPES = ["data=shapes", "data.train_size=600", "data.test_size=200", "data.val_size=100"]


def record(checkout: Path, shared: Path, place: Path) -> Recording:
    """Run the four jobs with the camlab of a checkout, in the folder `place`, and hash their output."""
    make_folder(shared / "photos", place / "data")
    jobs = {
        "frozen": ["mode=frozen", *SHAPES, "trainer.max_epochs=3"],
        "finetune": ["mode=finetune", *SHAPES, "trainer.max_epochs=2"],
        "folder": ["mode=finetune", "data=folder", f"data.root={place / 'data'}", "trainer.max_epochs=2"],
    }
    weights = f"arch.weights={shared / 'alexnet-imagenet1k-features.safetensors'}"
    places = [f"paths.cache={place / 'cache'}", f"paths.outputs={place / 'outputs'}"]
    recording: Recording = {}
    for name, settings in jobs.items():
        out = place / name
        run(checkout, "train", *COMMON, weights, *settings, *places, f"hydra.run.dir={out}")
        drawn = out / "heatmaps"
        recording[name] = {
            "weights": tensors(out),
            "metrics": metrics(out),
            "maps": maps(drawn),
            "pictures": pictures(drawn),
        }
    out = place / "explain"
    settings = ["methods=[cam,grad_cam,layer_cam]", "top_k=2", "device=cpu", f"out={out}"]
    run(checkout, "explain", f"images={shared / 'photos'}", f"checkpoint={place / 'finetune'}", *settings)
    predictions = (out / "predictions.csv").read_text().replace(str(shared), "")
    recording["explain"] = {
        "predictions": {"predictions.csv": digest(predictions.encode())},
        "maps": maps(out),
        "pictures": pictures(out),
    }
    return recording


def make_folder(photos: Path, root: Path) -> None:
    """Write a data set of two classes, made of crops of photographs in several sizes and shapes."""
    for i, photo in enumerate(sorted(photos.glob("*.jpg"))):
        with Image.open(photo) as file:
            picture = file.convert("RGB")
        width, height = picture.size
        for k, share in enumerate((0.5, 0.6, 0.7, 0.8)):
            box = (0, 0, int(share * width), height) if k % 2 else (0, 0, width, int(share * height))
            target = root / ("test" if k == 3 else "train") / ("a" if i % 2 else "b") / f"{photo.stem}_{k}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            crop = picture.crop(box)
            crop.thumbnail((240, 240))
            crop.save(target)


def run(checkout: Path, command: str, *arguments: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", "PYTHONPATH": str(checkout)}
    subprocess.run([sys.executable, "-m", f"camlab.{command}", *arguments], cwd=checkout, env=environment, check=True)


def tensors(run_dir: Path) -> Part:
    state = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return {name: digest(tensor.contiguous().numpy().tobytes()) for name, tensor in state.items()}


def metrics(run_dir: Path) -> Part:
    with open(run_dir / "metrics.csv", newline="") as file:
        rows = [{k: v for k, v in row.items() if k != "train/images_per_second"} for row in csv.DictReader(file)]
    return {f"row {i}": row for i, row in enumerate(rows)}


def maps(folder: Path) -> Part:
    found = {}
    for path in sorted(folder.rglob("maps.npz")):
        with np.load(path) as arrays:
            for name in arrays.files:
                array = arrays[name]
                if array.dtype.kind == "U":  # paths of the pictures, which differ from machine to machine
                    array = np.array([Path(text).name for text in array.reshape(-1)])
                found[f"{path.relative_to(folder)}:{name}"] = f"{array.dtype} {array.shape} {digest(array.tobytes())}"
    return found


def pictures(folder: Path) -> Part:
    found = {}
    for path in sorted([*folder.rglob("*.jpg"), *folder.rglob("*.png")]):
        with Image.open(path) as file:
            pixels = np.asarray(file)
        found[str(path.relative_to(folder))] = f"{pixels.shape} {digest(pixels.tobytes())}"
    return found


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def compare(before: Recording, after: Recording) -> int:
    """Print how many entries of each part are equal, and which are not. Returns the number of differences."""
    different = 0
    for job, parts in before.items():
        for part, old in parts.items():
            new = after.get(job, {}).get(part, {})
            changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
            different += len(changed)
            equal = len(old.keys() - set(changed))
            names = ", ".join(changed[:6]) + (f" and {len(changed) - 6} more" if len(changed) > 6 else "")
            print(f"{job:9} {part:12} {equal} of {len(old)} equal" + (f"; different: {names}" if changed else ""))
    return different


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", type=Path, nargs="?", metavar="RECORDING.json", help="file to write")
    parser.add_argument("--checkout", type=Path, default=Path(__file__).parents[2], metavar="FOLDER")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("BEFORE.json", "AFTER.json"))
    options = parser.parse_args()
    if options.compare:
        before, after = (json.loads(path.read_text()) for path in options.compare)
        sys.exit(int(compare(before, after) > 0))
    if not options.recording:
        parser.error("give a file to write, or --compare BEFORE.json AFTER.json")
    if not (shared := os.environ.get("CAMLAB_SHARED_DATA")):
        parser.error("CAMLAB_SHARED_DATA is not set; set it to the folder with weights and photographs")
    with tempfile.TemporaryDirectory() as place:
        recording = record(options.checkout.resolve(), Path(shared), Path(place))
    options.recording.write_text(json.dumps(recording, indent=1) + "\n")


if __name__ == "__main__":
    main()
