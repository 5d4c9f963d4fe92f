"""Ranks, sentences, tables and charts of values that are made up, so that it is known what they have to say."""

import csv
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from camlab.data.image_set import ImageSet
from camlab.evaluation.scoring.charts import write_charts
from camlab.evaluation.scoring.picture_set import of_split
from camlab.evaluation.scoring.report import print_table, write_tables
from camlab.evaluation.scoring.rows import Row
from camlab.evaluation.scoring.sentences import sentence, sentences
from camlab.evaluation.scoring.summary import Summary, summarise
from camlab.runs.score_names import METHODS_OF_AUTO, PSEUDO_METHODS, SCORES
from camlab.scores import noise
from tests.scores.networks import squares

N = 40
PICTURES = of_split(
    ImageSet(torch.zeros(N, 3, 16, 16, dtype=torch.uint8), torch.zeros(N, dtype=torch.int64), ("a",), squares(N)),
    N,
    "made up (test)",
)
# auroc, srg with two imputers, and Spearman with a random network
ROWS = {
    "random": (0.5, 0.0, 0.0, 0.0),
    "centre": (0.8, 0.3, 0.3, 0.0),
    "edges": (0.85, 0.2, 0.2, 1.0),
    "mask": (0.99, 0.5, 0.5, 0.0),
    "cam": (0.95, 0.6, 0.5, 0.1),
    "grad_cam": (0.9, 0.5, 0.6, 0.0),
    "layer_cam": (0.95, 0.6, 0.5, 0.9),
    "hires_cam": (0.8, 0.3, 0.3, 0.1),
    "legrad": (0.45, -0.1, -0.1, 0.0),
    "eigen_cam": (0.8, 0.4, -0.1, 0.0),
}


def columns(of: tuple[float, ...], row: int, n: int = N) -> dict[str, torch.Tensor]:
    drawn = 0.02 * noise.normal(row, torch.arange(4), n)
    auroc, mean, blur, mprt = torch.tensor(of)[:, None] + drawn
    none, nothing = torch.zeros(n), torch.zeros(n, 6)
    found = {"auroc": auroc, "srg_mean": mean, "srg_blur": blur, "mprt": mprt, "pair": mprt, "none": none}
    return found | {"none_of_true": none, "curves_mean": nothing, "curves_blur": nothing}


@pytest.fixture(scope="module")
def summary() -> Summary:
    measured = {Row(name, name, name, None, (), (4, 4)): columns(of, k) for k, (name, of) in enumerate(ROWS.items())}
    return summarise(PICTURES, ("auroc", "srg_mean", "srg_blur"), measured, {"score_cam": "it does not apply."})


def test_rows_are_ranked_apart_only_where_the_difference_excludes_zero(summary):
    ranks = {row: cells["auroc"].rank for row, cells in summary.cells.items()}
    assert ranks["mask"] == 1
    assert ranks["cam"] == ranks["layer_cam"] == 2
    assert ranks["grad_cam"] == 4
    assert ranks["legrad"] == len(ROWS)
    assert ranks["centre"] == ranks["hires_cam"] == ranks["eigen_cam"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("cam", ["finds the object (auroc 0.95, centre 0.80)", "shows what the network needs (", "changes with the weights"]),
        ("layer_cam", ["layer_cam FAILS the sanity gate", "they do not explain this network", "no evidence about this network"]),
        ("hires_cam", ["finds the object no better than the centre", "needs no better than the centre of the picture"]),
        ("legrad", ["does not find the object", "does not show what the network needs"]),
        ("eigen_cam", ["needs by one imputer and not by another"]),
    ],
)  # fmt: skip
def test_the_sentence_of_a_method(summary, row, words):
    told = sentence(summary, next(each for each in summary.rows if each.name == row))
    for each in words:
        assert each in told
    assert told.count(". ") <= 1


def test_a_method_that_cannot_be_compared_and_values_of_nearly_nothing():
    none = torch.full((N,), torch.nan)
    rows = [Row(name, name, name, None, (), (4, 4)) for name in ("centre", "cam", "grad_cam")]
    found = [columns((0.8, of, 0.3, 0.1), k) for k, of in enumerate((0.3, -0.0001, 0.3))]
    found[2] = found[2] | {"mprt": none, "pair": none}
    of_all = summarise(PICTURES, ("auroc", "srg_mean"), dict(zip(rows, found, strict=True)), {})
    assert "no map could be compared with that of a network with random weights" in sentence(of_all, rows[2])
    assert "srg (mean) -0.00" not in sentence(of_all, rows[1])


def test_what_else_the_reader_has_to_know(summary):
    told = sentences(summary)
    assert "score_cam is left out: it does not apply." in told
    (opposite,) = (each for each in told if "rank in opposite order" in each)
    assert opposite.startswith(
        "srg (mean) and srg (blur) rank in opposite order: cam and grad_cam, grad_cam and layer_cam"
    )
    assert not any("No method is better than" in each for each in told)


def test_a_score_that_a_pseudo_method_wins_is_no_evidence():
    measured = {
        Row(name, name, name, None, (), (4, 4)): columns(of, k)
        for k, (name, of) in enumerate(
            {"edges": (0.9, 0, 0, 1), "centre": (0.5, 0, 0, 0), "cam": (0.89, 1, 1, 0)}.items()
        )
    }
    told = sentences(summarise(PICTURES, ("auroc", "srg_mean", "srg_blur"), measured, {}))
    found = [each for each in told if each.startswith("No method is better than")]
    assert len(found) == 1
    assert found[0].startswith("No method is better than edges, which knows nothing of the network, in auroc:")


def test_the_files_say_what_was_found(summary, tmp_path, capsys):
    write_tables(tmp_path, summary, {"settings": {}})
    table = (tmp_path / "scores.md").read_text()
    assert re.search(r"^\| ~~layer_cam~~ \| FAILS \(\+?\.\d\d\) \|", table, re.MULTILINE)
    assert re.search(r"^\| \*mask\* \| – \| \*\*\.99 \[", table, re.MULTILINE)
    assert re.search(r"^\| \*chance\* \|  \| \.50 \| \.00 \| \.00 \|$", table, re.MULTILINE)
    written = json.loads((tmp_path / "scores.json").read_text())["scores"]
    assert written["layer_cam"]["gate"]["passes"] is False
    own = written["cam"]["scores"]["auroc"]
    assert own["low"] < own["mean"] < own["high"]
    assert (own["n"], own["none"], own["chance"]) == (N, 0, 0.5)
    with open(tmp_path / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == N * len(ROWS)
    values = [float(row["auroc"]) for row in rows if row["method"] == "cam"]
    assert np.mean(values) == pytest.approx(own["mean"], abs=1e-5)
    print_table(summary, whole=True)
    printed = capsys.readouterr().out
    assert "layer_cam FAILS the sanity gate" in printed
    assert re.search(r"chance +│ +│ +\.50 │ +\.00 │ +\.00 │", printed)
    assert "srg (mean)" in " ".join(printed.split())


@pytest.mark.slow
def test_the_charts_are_drawn(summary, tmp_path):
    assert write_charts(tmp_path, summary) == ["ranking.png", "curves.png"]
    for name in ("ranking.png", "curves.png"):
        assert np.asarray(Image.open(tmp_path / name).convert("L")).std() > 5


def test_the_words_of_the_command_are_those_of_the_library():
    from camlab.attribution.methods import METHODS
    from camlab.runs import score_names
    from camlab.scores import IMPUTERS
    from camlab.scores import SCORES as KNOWN

    assert {*SCORES, "mprt", "drift", "agreement"} == set(KNOWN), "those of epochs and of pairs of methods are left out"
    assert tuple(IMPUTERS) == score_names.IMPUTERS
    assert set(METHODS_OF_AUTO) <= set(METHODS)
    assert set(PSEUDO_METHODS).isdisjoint(METHODS)
