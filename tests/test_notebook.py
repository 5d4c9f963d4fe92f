"""The notebooks run from top to bottom without a network connection, and their output is what their text says."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"

pytestmark = pytest.mark.slow


def executed(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> nbformat.NotebookNode:
    """Run a notebook without a network connection, in a folder of its own."""
    monkeypatch.setenv("IPYTHONDIR", str(folder))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # any access to the network would fail
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


def said(notebook: nbformat.NotebookNode) -> str:
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "\n".join(output.get("text", "") for output in outputs if output.output_type == "stream")


def shown(notebook: nbformat.NotebookNode) -> int:
    """Number of pictures in the output."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return sum(kind.startswith("image/") for output in outputs for kind in output.get("data", {}))


def test_heatmaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = said(executed("heatmaps.ipynb", tmp_path, monkeypatch))
    differences = [
        float(line.split(":")[1]) for line in everything.splitlines() if "at most:" in line or "CAM:" in line
    ]
    assert len(differences) == 4
    assert max(differences) < 1e-4
    scores = {name: float(score) for name, score in re.findall(r"^(\w+) +([\d.]+) %$", everything, re.MULTILINE)}
    assert scores["cam"] > scores["centre"] + 20


def test_own_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm", reason="timm is not installed, and the notebook takes its networks from it")
    notebook = executed("own_model.ipynb", tmp_path, monkeypatch)
    everything = said(notebook)
    assert re.findall(r"^method: (\w+)$", everything, re.MULTILINE) == ["cam", "attention_relevance"]
    accuracies = [int(percent) for percent in re.findall(r"^accuracy (\d+) %", everything, re.MULTILINE)]
    assert len(accuracies) == 2
    assert min(accuracies) > 60
    cam, relevance, grad_cam = (float(score) for score in re.findall(r" (0\.\d\d)$", everything, re.MULTILINE))
    assert cam > 0.8
    assert relevance > max(0.75, grad_cam + 0.1)
    assert shown(notebook) == 6
    assert "Warning" not in everything
    assert "No heatmaps" not in everything


def test_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = executed("trust.ipynb", tmp_path, monkeypatch)
    everything = said(notebook)
    assert int(re.findall(r"^accuracy (\d+) %", everything, re.MULTILINE)[0]) > 85
    where, by_mean, by_blur = (
        {name: float(mean) for name, mean in re.findall(r"^(\w+) +([+-]\d\.\d\d)   \[", part, re.MULTILINE)}
        for part in re.split(r"^filled with \w+$", everything, flags=re.MULTILINE)
    )
    assert where["edges"] > 0.9, "the text says that edges find the objects"
    assert 0.4 < where["random"] < 0.6 < where["centre"] < min(where["grad_cam"], where["edges"])
    for gain in (by_mean, by_blur):
        assert abs(gain["random"]) < 0.1 < gain["centre"] < gain["grad_cam"]
    similar = {
        row[0]: (float(row[1]), row[2]) for row in re.findall(r"^(\w+) +([+-]\d\.\d\d)   (\w+)$", everything, re.M)
    }
    assert similar["edges"] == (1.0, "FAILS")
    assert similar["grad_cam"][1] == "passes"
    assert similar["layer_cam"][0] > similar["grad_cam"][0] + 0.1, "the text says that LayerCAM keeps more of its map"
    assert len(re.findall(r"^[A-H]  \w+ +(passes|FAILS|knows nothing)", everything, re.MULTILINE)) == 8
    assert shown(notebook) == 4
