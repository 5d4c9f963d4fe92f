"""How much faster is bf16? Images/s of fine-tuning and of a feature pass, with float32 and with bf16 autocast.

    python experiments/precision/rates.py [--rounds 5] [--batch 128] [--tiny]

AlexNet and VGG-16 of camlab at 224², random weights and pictures; autocast as Lightning's `bf16-mixed` does it. The two
precisions take turns. The script writes rates.csv beside this file. It takes about five minutes on 2 cores. bf16 is
fast only if the processor has AVX512-BF16 or AMX (see lscpu).
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmark import alternate, machine, quartiles, ratios, warn_if_busy, write_csv

from camlab.models.cam_net import CamNet

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PRECISIONS = {"32-true": False, "bf16-mixed": True}


def steps(arch: str, batch: int, is_bf16: bool, learns: bool) -> Callable[[], None]:
    """One step of fine-tuning, or one batch of a feature pass."""
    torch.manual_seed(0)
    network = CamNet(arch, weights=None).to(DEVICE).train(learns)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    images = torch.randn(batch, 3, 224, 224, device=DEVICE)
    labels = torch.randint(10, (batch,), device=DEVICE)

    def learn() -> None:
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=is_bf16):
            loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    @torch.inference_mode()
    def read() -> None:
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=is_bf16):
            network.backbone(images)

    return learn if learns else read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--tiny", action="store_true", help="few pictures, one network: a trial of this script")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    load = warn_if_busy()
    works = [("alexnet", True), ("alexnet", False), ("vgg16", False)]
    for arch, learns in works[:1] if options.tiny else works:
        batch = 4 if options.tiny else options.batch // (8 if arch == "vgg16" else 1)
        contestants = {name: steps(arch, batch, is_bf16, learns) for name, is_bf16 in PRECISIONS.items()}
        seconds = alternate(contestants, options.rounds)
        faster = ratios(seconds["32-true"], seconds["bf16-mixed"])
        for name, of in seconds.items():
            about = {
                "arch": arch,
                "work": "fine-tuning" if learns else "feature pass",
                "precision": name,
                "batch": batch,
            }
            about |= {f"images_per_s_{key}": value for key, value in quartiles([batch / s for s in of]).items()}
            about |= {f"speedup_{key}": value for key, value in quartiles(faster).items()} if name != "32-true" else {}
            rows.append({**about, "n": len(of), "load": round(load, 2), **machine()})
            print(rows[-1], flush=True)
    if not options.tiny:
        write_csv(Path(__file__).with_name("rates.csv"), rows)


if __name__ == "__main__":
    main()
