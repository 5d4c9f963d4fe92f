"""`camlab.dashboard` with W&B's real client, against a server on loopback: the workspace that it sends, and refusals."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_entries import command
from wandb_stub import KEY, WandbStub

from camlab import dashboard
from camlab.tracking import wandb_dashboard

pytest.importorskip("wandb_workspaces", reason="wandb-workspaces is not installed (pip install 'camlab[dashboard]')")
STORED = Path(__file__).parent / "dashboard_spec.json"  # CAMLAB_RENEW=1 writes it again after a wanted change


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WandbStub]:
    import wandb

    stub = WandbStub()
    stub.start()
    stub.projects.add("looking")
    monkeypatch.setenv("WANDB_BASE_URL", stub.url)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.chdir(tmp_path)
    yield stub
    wandb.teardown()
    stub.stop()


def without_ids(value: Any) -> Any:
    """The same value without the random ids of panels."""
    if isinstance(value, dict):
        return {key: without_ids(child) for key, child in value.items() if key not in ("__id__", "id")}
    return [without_ids(child) for child in value] if isinstance(value, list) else value


def sections(stub: WandbStub) -> list[dict[str, Any]]:
    spec = json.loads(stub.views["nw-camlab-v"]["spec"])
    return spec["section"]["panelBankConfig"]["sections"]


def test_the_workspace_is_the_stored_one_and_is_renewed_in_place(server, monkeypatch, capsys):
    assert command(monkeypatch, dashboard.main, "project=looking") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"Dashboard: {server.url}/tester/looking?nw=camlab"
    assert "Sync slider by key" in second
    sent = without_ids(json.loads(server.views["nw-camlab-v"]["spec"]))
    if os.environ.get("CAMLAB_RENEW"):
        STORED.write_text(json.dumps(sent, indent=1) + "\n")
    assert sent == json.loads(STORED.read_text())
    assert [one["name"] for one in sections(server)] == ["Curves", "Heatmaps", "Scores", "Sweep", "Runs compared"]

    spec = json.loads(server.views["nw-camlab-v"]["spec"])
    own = spec["section"]["panelBankConfig"]["sections"]
    own[0]["isOpen"] = False
    own.append({**own[0], "name": "Mine"})
    server.views["nw-camlab-v"]["spec"] = json.dumps(spec)
    assert command(monkeypatch, dashboard.main, "project=looking", "entity=tester") == 0
    assert capsys.readouterr().out.startswith(f"{first}\n")
    assert list(server.views) == ["nw-camlab-v"]
    assert [one["name"] for one in sections(server)][4:] == ["Runs compared", "Mine"]
    assert not sections(server)[0]["isOpen"]
    assert server.views["nw-camlab-v"]["id"] == "view 0"


def test_a_project_that_does_not_exist(server, monkeypatch, capsys):
    assert command(monkeypatch, dashboard.main, "project=lokking") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("project=lokking: tester has no such project in W&B, or the key may not see it. Train with")
    assert not server.views


def test_without_a_key(server, monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert command(monkeypatch, dashboard.main, "project=looking") == 2
    assert capsys.readouterr().err == "W&B: no API key. Run: wandb login, or set WANDB_API_KEY.\n"
    assert not server.requests


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("401", "returned error 401"),
        ("garbage", "Failed to verify credentials"),
        pytest.param("hang", "no answer from the server within", marks=pytest.mark.slow),
        pytest.param("down", "no answer from the server within", marks=pytest.mark.slow),
    ],
)
def test_a_server_that_fails(server, monkeypatch, capsys, fault, told):
    if fault == "down":
        server.stop()
    else:
        server.fault = fault
    monkeypatch.setattr(wandb_dashboard, "_TIMEOUT", 3)
    assert command(monkeypatch, dashboard.main, "project=looking") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("W&B: ")
    assert told in line
    assert line.endswith("The dashboard was not made; try again later.")


@pytest.mark.parametrize("arguments", [[], ["project=''"], ["project=looking", "entity=[a]"]])
def test_mistakes_on_the_command_line(monkeypatch, capsys, arguments):
    assert command(monkeypatch, dashboard.main, *arguments) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) <= 2
