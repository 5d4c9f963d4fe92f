"""The notebooks run from top to bottom without a network connection, and their output is what their text says."""

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from viewer_runs import make_run

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


def test_heatmaps_are_browsed_in_a_notebook_and_in_its_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page works in the frame, which cannot touch what surrounds it."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    nbconvert = pytest.importorskip("nbconvert", reason="nbconvert is not installed")
    if (chromium := shutil.which("chromium")) is None:
        pytest.skip("chromium is not installed (apt-get install chromium)")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    make_run(tmp_path / "run")
    cells = [nbformat.v4.new_code_cell("import camlab\ncamlab.browse('run', height=600)")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert "a page of heatmaps" in notebook.cells[0].outputs[0].data["text/plain"]
    exported, _ = nbconvert.HTMLExporter(template_name="basic").from_notebook_node(notebook)
    (tmp_path / "notebook.html").write_text(exported)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page, troubles = browser.new_page(), []
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.goto((tmp_path / "notebook.html").as_uri())
        frame = page.frame_locator('iframe[title="Heatmaps"]')
        frame.locator("body.is-ready").wait_for(timeout=20_000)
        frame.locator("#epoch").fill("1")
        assert frame.locator("#epoch-label").inner_text() == "Epoch 1 of 3"
        assert frame.locator(".tile canvas").count() == 6
        assert frame.locator("#copy-link").is_hidden()
        inside = next(one for one in page.frames if one.url == "about:srcdoc")
        assert (
            inside.evaluate("(() => { try { return parent.document.title; } catch { return 'separated'; } })()")
            == "separated"
        )
        page.wait_for_timeout(300)
        assert not troubles
        browser.close()


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
