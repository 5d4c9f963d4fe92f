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
