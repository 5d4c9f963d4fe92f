"""Pictures with any number of labels, from a table to the evaluation: the right loss, figures, heatmaps and refusals."""

import csv
import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from test_training import trainer
from torch import Tensor
from torchmetrics.functional.classification import (
    multilabel_accuracy,
    multilabel_average_precision,
    multilabel_f1_score,
)
from torchmetrics.utilities import dim_zero_cat

from camlab.data.balance import positive_weights
from camlab.data.image_set import stratified_split
from camlab.data.table import Table
from camlab.errors import UserError
from camlab.evaluation import run_result
from camlab.evaluation.report import write_report
from camlab.evaluation.testing import evaluate
from camlab.models.cam_net import CamNet
from camlab.training.callbacks.checkpoints import checkpoints
from camlab.training.callbacks.heatmap_logger import HeatmapLogger
from camlab.training.callbacks.score_logger import ScoreLogger
from camlab.training.checkpoint import load_network
from camlab.training.classifier import Classifier
from camlab.training.losses import losses_of
from camlab.training.metrics import LabelCounts
from camlab.training.run import Run

LABELS = ("blue", "red")


def table(folder: Path, count: int = 40, masks: bool = False, **options) -> Table:
    """Pictures whose left half is red, or whose right half is blue, or both, or neither."""
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    rows = ["path;label;split;box".replace(";", ",")]
    for i in range(count):
        pixels = np.random.default_rng(i).integers(60, 120, (32, 32, 3), dtype=np.uint8)
        has = {"red": i % 2 == 1, "blue": i // 2 % 2 == 1}
        pixels[:, :16, 0] = 250 if has["red"] else 30
        pixels[:, 16:, 2] = 250 if has["blue"] else 30
        Image.fromarray(pixels).save(folder / "photos" / f"{i}.png")
        split = ("train", "train", "train", "val", "test")[i // 4 % 5]
        box = "0 0 16 32" if masks else ""
        rows.append(f"photos/{i}.png,{'; '.join(name for name in sorted(has) if has[name])},{split},{box}")
    (folder / "t.csv").write_text("\n".join(rows))
    return Table(
        str(folder / "t.csv"), multi_label=True, image_size=64, batch_size=8, cache=str(folder / "cache"),
        **{"split": (1, 0, 0), **options},
    )  # fmt: skip


def classifier() -> Classifier:
    torch.manual_seed(0)
    network = CamNet("alexnet", num_classes=2, keep_last_pool=False)
    return Classifier(network, functools.partial(torch.optim.Adam, lr=1e-3), multi_label=True)


def test_a_table_gives_each_picture_any_number_of_labels(tmp_path, caplog):
    caplog.set_level("INFO")
    data = table(tmp_path)
    data.setup()
    assert data.class_names == LABELS
    assert data.splits["train"].labels[:4].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert "2 classes (blue: 20, red: 20, 10 without a label); train 24, val 8, test 8" in caplog.text
    (tmp_path / "t.jsonl").write_text('{"path": "photos/1.png", "label": ["red", "blue", "red"]}')
    assert Table(str(tmp_path / "t.jsonl"), multi_label=True).find()[0].labels == ("red", "blue")
    (tmp_path / "t.jsonl").write_text(
        '{"path": "photos/1.png", "label": [null]}\n{"path": "photos/2.png", "label": null}'
    )
    caplog.clear()
    assert [picture.labels for picture in Table(str(tmp_path / "t.jsonl"), multi_label=True).find()] == [(), ()]
    assert caplog.messages == [
        f"{tmp_path / 't.jsonl'}: no picture has several labels. The separator is ';', as in 'cat; dog'."
    ]
    with pytest.raises(UserError, match=r"row 1: its label is a list\. Give data.multi_label=true"):
        Table(str(tmp_path / "t.jsonl")).find()
    (tmp_path / "t.csv").write_text("path,label\nphotos/1.png,red;blue\nphotos/2.png,red")
    assert [picture.labels for picture in Table(str(tmp_path / "t.csv")).find()] == [("red;blue",), ("red",)]
    assert "1 labels contain a semicolon" in caplog.text
    rest, chosen = stratified_split(torch.tensor([[0, 1], [0, 1], [1, 1], [1, 1]]), 2, 0)
    assert (len({int(i) // 2 for i in chosen}), len(rest)) == (2, 2), "the same share of each set of labels"
    with pytest.raises(UserError, match=r"data\.balance=sampling: pictures with several labels"):
        table(tmp_path, balance="sampling").setup()


def test_figures_equal_torchmetrics_and_losses_those_of_torch():
    logits, labels = torch.randn(100, 3), (torch.rand(100, 3) < 0.3).long()
    counts = LabelCounts(3)
    for some in torch.arange(100).split(32):
        counts.update(logits[some], labels[some])
    found, chances = counts.compute(), logits.sigmoid()
    torch.testing.assert_close(found["acc"], multilabel_accuracy(chances, labels, 3, average="micro"))
    torch.testing.assert_close(found["f1"], multilabel_f1_score(chances, labels, 3, average="macro"))
    torch.testing.assert_close(found["map"], multilabel_average_precision(chances, labels, 3, average="macro"))
    torch.testing.assert_close(
        losses_of(logits, labels, positive_weights(labels)).mean(),
        F.binary_cross_entropy_with_logits(logits, labels.float(), pos_weight=positive_weights(labels)),
    )
    counts = LabelCounts(3)  # the third label never occurs, and the second always does
    counts.update(torch.tensor([[1.0, 1, -1], [-1.0, 1, -1]]), torch.tensor([[1, 1, 0], [1, 1, 0]]))
    figures = {name: float(value) for name, value in counts.compute().items()}
    assert figures == pytest.approx({"acc": 5 / 6, "balanced_acc": (0.5 + 1 + 1) / 3, "f1": (2 / 3 + 1) / 2, "map": 1})


def test_a_process_without_pictures_gathers_none():
    counts, gathered = LabelCounts(3), []

    def gather(part: Tensor, group: Any) -> list[Tensor]:  # what another process has, and this one's
        gathered.append(part)
        return [torch.ones(2, 3) if part.dim() == 2 else torch.ones_like(part), part]

    counts.sync(dist_sync_fn=gather, distributed_available=lambda: True)
    assert [tuple(part.shape) for part in gathered if part.dim() == 2] == [(0, 3), (0, 3)]
    assert tuple(dim_zero_cat(counts.logits).shape) == (2, 3)


@pytest.mark.slow  # 4 epochs with heatmaps
def test_a_multi_label_run_learns_each_label_and_reports_it(tmp_path, caplog):
    caplog.set_level("INFO")
    module, data = classifier(), table(tmp_path, masks=True, balance="weights")
    drawing = [HeatmapLogger(every_n_epochs=4, per_class=2), ScoreLogger()]
    saving = checkpoints(Run(tmp_path), True, by="val/map")
    run = trainer(tmp_path, max_epochs=4, callbacks=[*drawing, *saving])
    run.fit(module, datamodule=data)
    assert "Heatmaps are not scored during training, because a picture may have several labels." in caplog.text
    assert not [record for record in caplog.records if "heatmaps" in record.message and record.levelname == "WARNING"]
    names = [path.name for path in (tmp_path / "heatmaps" / "epoch_0004").glob("*.jpg")]
    assert names, "heatmaps are drawn"
    best = tmp_path / "checkpoints" / "best.ckpt"
    report = run_result.test_fitted(run, module, data, best, tmp_path)
    result = run_result.describe_result(run, data, {}, report)
    assert result["metrics"]["test/map"] > 0.9
    assert result["metrics"]["test/acc"] == pytest.approx(report.accuracy)
    assert not any("pointing_game" in name for name in result["metrics"])
    trained = load_network(best)
    assert trained.multi_label
    again = evaluate(trained, data, "test", {"accelerator": "cpu"}, str(tmp_path))
    assert again.metrics["map"] == pytest.approx(result["metrics"]["test/map"])
    assert write_report(tmp_path / "out", again) == ["evaluation.json", "labels.csv"]
    assert "confusion_matrix" not in json.loads((tmp_path / "out" / "evaluation.json").read_text())
    rows = list(csv.DictReader((tmp_path / "out" / "labels.csv").read_text().splitlines()))
    assert [(row["label"], row["images"]) for row in rows] == [("blue", "4"), ("red", "4")]
    assert float(rows[0]["recall"]) == again.per_class.get("blue", 0.0)
    with pytest.raises(UserError, match=r"A picture may have several labels in these data, but has one label for"):
        evaluate(dataclasses.replace(trained, multi_label=False), data, "test", {"accelerator": "cpu"}, str(tmp_path))
