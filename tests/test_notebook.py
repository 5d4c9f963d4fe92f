"""The notebook runs from top to bottom without a network connection, and its output is what its text says."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "heatmaps.ipynb"

pytestmark = pytest.mark.slow


def said(cell: nbformat.NotebookNode) -> str:
    return "".join(output.get("text", "") for output in cell.outputs if output.output_type == "stream")


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # any access to the network would fail
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    everything = "\n".join(said(cell) for cell in notebook.cells if cell.cell_type == "code")
    differences = [
        float(line.split(":")[1]) for line in everything.splitlines() if "at most:" in line or "CAM:" in line
    ]
    assert len(differences) == 4
    assert max(differences) < 1e-4
    scores = {name: float(score) for name, score in re.findall(r"^(\w+) +([\d.]+) %$", everything, re.MULTILINE)}
    assert scores["cam"] > scores["centre"] + 20
