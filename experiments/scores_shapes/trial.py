"""Which heatmaps of a network trained on shapes can be trusted? Scores all methods beside pseudo-methods.

    python -m camlab.train experiment=demo
    python experiments/scores_shapes/trial.py outputs/…/checkpoints/last.ckpt

200 test shapes; localisation takes the true class, removal the predicted one. The sanity gate takes 100 of them. The
script writes trial.csv beside this file. It takes about five minutes on one core.
"""

import argparse
import csv
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from camlab import scores
from camlab.data.shape_drawing import draw_shapes
from camlab.scores import Interval, mean_interval
from camlab.scores.statistics import check_chance
from camlab.training.checkpoint import load_network

METHODS = ("cam", "grad_cam", "grad_cam_plus_plus", "xgrad_cam", "hires_cam", "layer_cam")
PLACE = ("auroc", "energy", "energy_gain", "pointing_game", "max_box_acc")
N, N_GATE, TEST_SEED = 200, 100, 1


def table(network: nn.Module, images: Tensor, labels: Tensor, masks: Tensor) -> dict[str, dict[str, Tensor]]:
    """Values of each image by method and score."""
    explaining = scores.Explaining(METHODS)
    passes = scores.Passes(network, images)
    of_true, of_predicted = (explaining(network, images, classes) for classes in (labels, passes.class_idx))
    pseudo = scores.pseudo_maps(images, tuple(of_true["cam"].shape[1:]), masks)
    rows = {}
    for name in (*METHODS, *pseudo):
        shown, needed = of_true.get(name, pseudo.get(name)), of_predicted.get(name, pseudo.get(name))
        rows[name] = {score: scores.SCORES[score].function(shown, masks) for score in PLACE}
        for imputer in ("mean", "blur"):
            rows[name][f"srg_{imputer}"] = scores.removal_curves(passes, needed, imputer).srg
        rows[name]["effective_area"] = scores.effective_area(shown)
    for score, chance in (("auroc", 0.5), ("energy_gain", 0.0), ("srg_mean", 0.0), ("srg_blur", 0.0)):
        check_chance(score, rows["random"][score], chance)
    return rows


def verdicts(network: nn.Module, images: Tensor) -> dict[str, scores.Verdict]:
    grid = tuple(scores.Explaining("cam")(network, images[:1], torch.zeros(1, dtype=torch.int64))["cam"].shape[1:])
    found = scores.mprt(network, images, METHODS, stages=1)
    own = {"edges": lambda model, x, class_idx: scores.pseudo_maps(x, grid)["edges"]}
    return {
        name: scores.gate(result) for name, result in {**found, **scores.mprt(network, images, own, stages=1)}.items()
    }


def shown(interval: Interval) -> str:
    return f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def main(checkpoint: Path) -> None:
    trained = load_network(checkpoint)
    pictures, labels, masks = (torch.from_numpy(part[:N]) for part in draw_shapes(1000, TEST_SEED))
    images, classes, began = trained.preprocess(pictures), labels.long(), time.perf_counter()
    rows = table(trained.network, images, classes, masks)
    seconds = time.perf_counter() - began
    print(f"{N} images, mean area {float(scores.area(masks).mean()):.3f}, {seconds:.0f} s")
    written = []
    for name, values in rows.items():
        intervals = {score: mean_interval(of) for score, of in values.items()}
        print(f"{name:20}" + "  ".join(f"{score} {shown(of)}" for score, of in intervals.items()))
        written += [{"method": name, "score": score, **vars(of)} for score, of in intervals.items()]
    for name, verdict in verdicts(trained.network, images[:N_GATE]).items():
        word = {True: "passes", False: "FAILS", None: "unknown"}[verdict.passes]
        print(f"{name:20}{shown(verdict.similarity)} (pair {verdict.of_random_pair.mean:+.2f}): {word}")
        written.append({"method": name, "score": "mprt", **vars(verdict.similarity)})
    with open(Path(__file__).parent / "trial.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(written[0]))
        writer.writeheader()
        writer.writerows({key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()} for row in written)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="a checkpoint of the demo's network")
    main(parser.parse_args().checkpoint)
