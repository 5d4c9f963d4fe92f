"""`make demo` as a newcomer runs it, in a process of its own: its time, its accuracy, and the files that it leaves."""

import json
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest

pytestmark = pytest.mark.slow


def test_demo(tmp_path: Path) -> None:
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "camlab.train", "experiment=demo"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=800,
    )
    seconds = time.perf_counter() - began
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    (result_file,) = tmp_path.glob("outputs/*/*/result.json")
    metrics = json.loads(result_file.read_text())["metrics"]
    assert metrics["test/acc"] >= 0.92
    assert metrics["test/pointing_game"] >= 0.85
    assert metrics["test/pointing_game"] >= metrics["test/pointing_game_center"] + 0.20
    sheet_line, page_line = done.stdout.strip().splitlines()[-2:]
    assert sheet_line.startswith("Heatmaps: open ")
    assert cv2.imread(str(tmp_path / sheet_line.removeprefix("Heatmaps: open "))).shape[0] > 500
    page = tmp_path / page_line.removeprefix("All epochs, in a browser: open ")
    assert page.name == "heatmaps.html"
    assert page.stat().st_size < 2e6
    assert "The hottest point lies on the object in " in done.stdout
    assert "Traceback" not in done.stderr
    print(f"the demo took {seconds:.0f} s")
