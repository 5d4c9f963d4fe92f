"""Speed and memory of one's own pictures, beside torchvision's ImageFolder in a DataLoader with two workers.

    python experiments/own_data/run.py --sizes 1000 10000 100000 --out experiments/own_data/results.csv
    python experiments/own_data/run.py --sizes 1000 10000 --memory-ready --out experiments/own_data/memory_ready.csv

For each size, a folder of JPEGs of about 500×375 pixels in ten classes is made. Both contestants then read the same
files, each in a process of its own and in turns: the first pass (decoding everything), later epochs (batches of 128 on
the device, without a network), and the start of the second run. Memory is the most that is allocated (RssAnon), sampled
from another process; for the DataLoader, that of its workers is added.

A virtual machine gets memory from its host when a page is used for the first time, which can take longer than to fill
it. The first pass needs such pages for the store in the system's cache of files, a DataLoader needs none. With
--memory-ready, the pages are fetched before the measurement, and become free as the store grows.
"""

import argparse
import json
import mmap
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmark import csv_file, machine, warn_if_busy, write_csv

SIDE, BATCH, CLASSES, BASES = 224, 128, 10, 40


def make_pictures(root: Path, n: int, photos: Path | None) -> None:
    """Write n JPEGs that all differ: those of `photos`, or smooth noise, each with a comment of its own in the file."""
    bases = []
    files = sorted(photos.glob("*.jpg")) if photos else []
    random = np.random.default_rng(0)
    for i in range(len(files) or BASES):
        noise = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((500, 375), Image.BICUBIC)
        picture = Image.open(files[i]).convert("RGB").resize((500, 375)) if files else noise
        path = root / "base.jpg"
        picture.save(path, quality=90)
        bases.append(path.read_bytes())
        path.unlink()
    for i in range(n):
        folder = root / ("test" if i % 10 == 9 else "train") / f"class {i // 10 % CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        comment = str(i).encode()
        segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
        base = bases[i % len(bases)]
        (folder / f"{i}.jpg").write_bytes(base[:2] + segment + base[2:])


class Memory(threading.Thread):
    """Samples, from outside, the memory that a process and the processes that it has started have allocated."""

    def __init__(self, number: int) -> None:
        super().__init__(daemon=True)
        self.most, self.process = 0.0, psutil.Process(number)
        self.start()

    def run(self) -> None:
        while self.process.is_running():
            try:
                several = [self.process, *self.process.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            self.most = max(self.most, sum(map(anonymous_mb, several)))
            time.sleep(0.2)


class ReadyMemory(threading.Thread):
    """Memory that has been used already, and becomes free as the store of decoded pictures grows.

    A host takes back what has been free for some seconds, so it cannot all be freed at the start.
    """

    AHEAD_BYTES = 64 << 20  # free before the store needs them

    def __init__(self, num_bytes: int, cache: Path) -> None:
        super().__init__(daemon=True)
        self.cache, self.pages, self.over = cache, mmap.mmap(-1, num_bytes), threading.Event()
        np.frombuffer(self.pages, np.uint8)[:: mmap.PAGESIZE] = 1
        self.start()

    def run(self) -> None:
        freed = 0
        while not self.over.wait(0.05):
            written = sum(file.stat().st_size for file in self.cache.glob("pictures/*.records"))
            wanted = min(written + self.AHEAD_BYTES, len(self.pages)) // mmap.PAGESIZE * mmap.PAGESIZE
            if wanted > freed:
                self.pages.madvise(mmap.MADV_DONTNEED, freed, wanted - freed)
                freed = wanted


def anonymous_mb(process: psutil.Process) -> float:
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((float(line.split()[1]) / 1e3 for line in lines if line.startswith("RssAnon:")), 0.0)


def camlab(root: Path, cache: Path, epochs: int) -> dict[str, float]:
    """Measure camlab: the start of a run (which decodes what is not in the store), and epochs of batches."""
    import lightning as L

    from camlab.data.folder import Folder

    began = time.perf_counter()
    data = Folder(str(root), cache=str(cache), image_size=SIDE, batch_size=BATCH, split=(1, 0, 0))
    data.setup()
    data.fingerprint()
    start = time.perf_counter() - began
    data.trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="auto", devices=1)
    device, loader, seconds = data.trainer.strategy.root_device, data.train_dataloader(), []
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        began = time.perf_counter()
        for batch in loader:
            batch.images.to(device, non_blocking=True)
        seconds.append(time.perf_counter() - began)
    return {"start_s": start, "epoch_s": min(seconds), "n": len(data.splits["train"])}


def image_folder(root: Path, cache: Path, epochs: int) -> dict[str, float]:
    """Measure torchvision: its ImageFolder decodes every picture in every epoch."""
    import torch
    from torch.utils.data import DataLoader
    from torchvision import transforms as T
    from torchvision.datasets import ImageFolder

    began = time.perf_counter()
    data = ImageFolder(str(root / "train"), T.Compose([T.Resize(SIDE), T.CenterCrop(SIDE), T.PILToTensor()]))
    loader = DataLoader(data, BATCH, shuffle=True, num_workers=2, pin_memory=torch.cuda.is_available())
    start, seconds = time.perf_counter() - began, []
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for _ in range(epochs):
        began = time.perf_counter()
        for images, _labels in loader:
            images.to(device, non_blocking=True)
        seconds.append(time.perf_counter() - began)
    return {"start_s": start, "epoch_s": min(seconds), "n": len(data)}


def in_a_process(name: str, root: Path, cache: Path, epochs: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", name, str(root), str(cache), str(epochs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        memory = Memory(process.pid)
        said, _ = process.communicate()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return {**json.loads(said.splitlines()[-1]), "memory_mb": memory.most}


def measure(n: int, options: argparse.Namespace) -> dict[str, object]:
    with tempfile.TemporaryDirectory(dir=options.place) as folder:
        root, cache = Path(folder) / "photos", Path(folder) / "cache"
        root.mkdir()
        make_pictures(root, n, options.photos)
        theirs = in_a_process("image_folder", root, cache, 1)  # reads the files into the system's cache for both
        ready = ReadyMemory(n * 3 * SIDE * SIDE, cache) if options.memory_ready else None
        ours = in_a_process("camlab", root, cache, options.epochs)
        if ready is not None:
            ready.over.set()
        theirs = in_a_process("image_folder", root, cache, 1)
        again = in_a_process("camlab", root, cache, options.epochs)
        first = n / ours["start_s"]
        decoding, later = theirs["n"] / theirs["epoch_s"], again["n"] / again["epoch_s"]
        found = {
            "pictures": n,
            "memory_ready": options.memory_ready,
            "first_pass_images_s": round(first),
            "image_folder_images_s": round(decoding),
            "first_pass_ratio": round(first / decoding, 2),
            "later_images_s": round(later),
            "later_ratio": round(later / decoding, 1),
            "second_start_s": round(again["start_s"], 2),
            "memory_mb": round(max(ours["memory_mb"], again["memory_mb"])),
            "image_folder_memory_mb": round(theirs["memory_mb"]),
        }
        print(json.dumps(found), flush=True)
        return {**found, **machine()}


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        name, root, cache, epochs = sys.argv[2:]
        contestant = {"camlab": camlab, "image_folder": image_folder}[name]
        print(json.dumps(contestant(Path(root), Path(cache), int(epochs))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000], help="numbers of pictures")
    parser.add_argument("--photos", type=Path, help="folder of JPEGs to make the pictures of; otherwise they are noise")
    parser.add_argument("--epochs", type=int, default=2, help="epochs, of which the fastest counts")
    parser.add_argument("--memory-ready", action="store_true", help="fetch the memory for the store beforehand")
    parser.add_argument("--place", type=Path, default=Path(tempfile.gettempdir()), help="folder for 20 GB of files")
    parser.add_argument("--out", type=csv_file, help="CSV file for the results")
    options = parser.parse_args()
    warn_if_busy()
    rows = []
    for n in options.sizes:
        rows.append(measure(n, options))
        if options.out:
            write_csv(options.out, rows)


if __name__ == "__main__":
    main()
