"""Sweeps: names of sweeps and jobs, failures, resuming, and every launcher and sweeper in a real process."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from test_cli import Launch, launch  # noqa: F401  (a fixture)
from test_entries import TINY, command

from camlab import train
from camlab.command_line import sweeps
from camlab.errors import UserError
from camlab.runs import run_folder

QUICK = [*TINY, "trainer.max_epochs=1", "logger=csv", "callbacks.heatmaps=null", "data.train_size=40"]


def sweep_name(*overrides: str) -> str:
    (name,) = (a for a in sweeps.naming_arguments(overrides) if a.startswith("sweep="))
    return name.removeprefix("sweep=")


# ---- names


def test_a_sweep_is_named_by_what_it_varies_and_the_same_for_the_same_command():
    name = sweep_name("arch=alexnet,vgg13", "optimizer.lr=1e-3,1e-4", "trainer.max_epochs=3")
    assert re.fullmatch(r"arch-lr_[0-9a-f]{8}", name)
    assert name == sweep_name("trainer.max_epochs=3", "optimizer.lr=1e-3,1e-4", "arch=alexnet,vgg13")
    assert name != sweep_name("trainer.max_epochs=4", "optimizer.lr=1e-3,1e-4", "arch=alexnet,vgg13")
    averaged = "+callbacks.swa._target_=lightning.pytorch.callbacks.StochasticWeightAveraging"
    assert name != sweep_name("trainer.max_epochs=3", "optimizer.lr=1e-3,1e-4", "arch=alexnet,vgg13", averaged)
    for incidental in (
        "force=true",
        "hydra/launcher=joblib",
        "launcher=joblib",
        "hydra.launcher.n_jobs=3",
        "logger=csv",
        "callbacks.heatmaps=null",
    ):
        assert name == sweep_name("trainer.max_epochs=3", "optimizer.lr=1e-3,1e-4", "arch=alexnet,vgg13", incidental)


def test_a_study_names_its_sweep_and_so_may_the_user():
    assert sweep_name("experiment=learning_rate").startswith("learning_rate_")
    assert not [a for a in sweeps.naming_arguments(["sweep=mine", "seed=0,1"]) if a.startswith("sweep=")]


@pytest.mark.parametrize(
    ("varied", "name"),
    [
        ("arch-alexnet_optimizer.lr-1e-3", "arch-alexnet_optimizer.lr-1e-3"),
        ("", "alexnet-frozen-cifar10"),
        ("checkpoint-'A'_split-val", "checkpoint-A_split-val"),
        ("checkpoint-'A b'", r"checkpoint-A-b_[0-9a-f]{8}"),
        ("arch.weights-/a/b c.pth", r"arch.weights--a-b-c.pth_[0-9a-f]{8}"),
        ("arch.weights-'/home/me/a/b c.pth'", r"arch.weights-a-b-c.pth_[0-9a-f]{8}"),
        (
            "checkpoint-'/x/it\\'s/run/checkpoints/best.ckpt'_split-val",
            r"checkpoint-run-best.ckpt_split-val_[0-9a-f]{8}",
        ),
        (
            "checkpoint-'/y/it\\'s/run/checkpoints/best.ckpt'_split-val",
            r"checkpoint-run-best.ckpt_split-val_[0-9a-f]{8}",
        ),
        ("checkpoint-'/'", r"checkpoint_[0-9a-f]{8}"),
        ("data.mean-[0.5,0.5,0.5]", r"data.mean--0.5-0.5-0.5_[0-9a-f]{8}"),
        ("data.mean-[0.4,0.4,0.4]", r"data.mean--0.4-0.4-0.4_[0-9a-f]{8}"),
        ("x-é=1", r"x--1_[0-9a-f]{8}"),
        ("seed-" + "1" * 200, r"seed-1{95}_[0-9a-f]{8}"),
    ],
)
def test_a_jobs_name_needs_no_quotes_on_the_command_line(varied, name):
    found = sweeps.job_name(varied, "alexnet-frozen-cifar10")
    assert re.fullmatch(name, found)
    assert re.fullmatch(r"[A-Za-z0-9._+-]+", found)


@pytest.mark.slow
def test_jobs_are_named_by_what_varies(launch, tmp_path):  # noqa: F811
    code, _, seen = launch(
        "-m", "data=shapes", "arch=alexnet,vgg13", "+trainer.max_time=null", "optimizer.lr=1e-3,1e-4"
    )
    assert code == 0
    assert len(seen) == 4
    (folder,) = (tmp_path / "outputs" / "sweeps").iterdir()
    names = {f"arch-{arch}_optimizer.lr-{lr}" for arch in ("alexnet", "vgg13") for lr in ("0.001", "0.0001")}
    assert {path.name for path in folder.iterdir() if path.is_dir()} == names
    assert {config.sweep for config in seen} == {folder.name}
    assert {config.logger.wandb.group for config in seen} == {folder.name}


@pytest.mark.slow
def test_a_command_overrides_a_studys_values(launch):  # noqa: F811
    _, _, seen = launch("-m", "experiment=learning_rate", "mode=frozen", "seed=0")
    assert [config.optimizer.lr for config in seen] == [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
    assert {config.mode for config in seen} == {"frozen"}


# ---- failures


@pytest.mark.slow
def test_failing_jobs_do_not_stop_the_others_and_are_told_at_the_end(launch, tmp_path):  # noqa: F811
    def task(config: DictConfig) -> float:
        if config.seed == 1:
            raise UserError("seed=1: an unlucky number.")
        if config.seed == 2:
            raise ValueError("broken")
        if config.seed == 3:
            sys.exit(7)
        return 0.0

    code, told, seen = launch("-m", "seed=0,1,2,3,4", task=task)
    assert [config.seed for config in seen] == [0, 1, 2, 3, 4]
    assert code == 1
    end = told[told.index("3 jobs failed. Give the same command to try again:") :].splitlines()
    assert end[1:] == [
        "  seed-1: seed=1: an unlucky number.",
        "  seed-2: ValueError: broken",
        "  seed-3: SystemExit: 7",
    ]
    assert told.count("Traceback") == 2, "only for errors that are not the user's mistakes"
    assert "Error executing job" not in told
    (folder,) = (tmp_path / "outputs" / "sweeps").iterdir()
    failure = run_folder.read_failure(folder / "seed-2")
    assert "ValueError: broken" in failure.traceback
    assert not failure.by_user


@pytest.mark.slow
@pytest.mark.parametrize("ahead", [-3600])
def test_failures_are_counted_by_job_whatever_the_file_servers_clock_says(launch, tmp_path, monkeypatch, ahead):  # noqa: F811
    def task(config: DictConfig) -> float:
        if config.seed < 2:
            raise UserError(f"seed={config.seed}: an unlucky number.")
        return 0.0

    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + ahead)
    code, told, _ = launch("-m", "seed=0,2", "sweep=mine", task=task)
    assert (code, told.count("1 job failed")) == (2, 1)
    code, told, _ = launch("-m", "seed=2,3", "sweep=mine", task=task)
    assert (code, told) == (0, ""), "the failure of seed=0 is an earlier sweep's"
    code, told, _ = launch("-m", "seed=0,1", "sweep=mine", task=task)
    assert (code, told.count("2 jobs failed")) == (2, 1), "seed=0 has failed again"
    for failure in (tmp_path / "outputs" / "sweeps" / "mine").glob("*/failure.json"):
        failure.write_text('{"message": ["no text"], "by_user": 3}')
    assert launch("-m", "seed=3", "sweep=mine", task=task)[0] == 0, "a damaged note is none"


@pytest.mark.slow
def test_a_job_of_explain_that_failed_is_tried_again_in_its_folder(launch, tmp_path):  # noqa: F811
    def task(config: DictConfig) -> float:
        raise UserError("target=9: no such class.")

    again = ["-m", "images=x", "network=vgg16", "target=8,9", "out=sweep"]
    for _ in range(2):
        code, told, _ = launch(*again, task=task, entry="explain")
        assert code == 2
        assert "target-8 and 1 more: target=9: no such class." in told


@pytest.mark.slow
def test_a_sweep_of_explain_skips_its_finished_jobs(launch, tmp_path):  # noqa: F811
    def task(config: DictConfig) -> int:
        out = Path(HydraConfig.get().runtime.output_dir)
        (out / "overlays").mkdir(exist_ok=True)
        (out / "explain.json").write_text("{}")
        if config.target == "9" and (tmp_path / "broken").exists():
            raise UserError("1 of 2 pictures was skipped.")
        return 7

    def again(*arguments: str) -> tuple[int, list[str]]:
        code, _, seen = launch("-m", "images=x", "network=vgg16", "out=sweep", *arguments, task=task, entry="explain")
        return code, [config.target for config in seen]

    (tmp_path / "broken").touch()
    assert again("target=8,9") == (2, ["8", "9"])
    (tmp_path / "broken").unlink()
    assert again("target=8,9") == (0, ["9"]), "the job that failed is tried again in its folder"
    told = (tmp_path / "sweep" / "target-8" / "explain.log").read_text()
    assert f"{tmp_path}/sweep/target-8 is finished; skipped. To repeat it, remove that folder." in told
    assert not (tmp_path / "sweep" / "target-9" / "failure.json").exists()
    assert again("target=8,9") == (0, [])
    assert again("target=8,9", "hydra.sweep.subdir=target-${target}", "top_k=1", "alpha=0.3") == (2, [])
    (tmp_path / "sweep" / "target-8" / ".job.json").unlink()
    assert again("target=8,9") == (2, []), "it is unknown which job has written these files"


def test_mistakes_of_the_user_alone_end_with_code_2_and_are_told_once(launch):  # noqa: F811
    code, told, seen = launch("-m", "seed=0,1,2", "trainer.max_epochs=-1")
    assert code == 2
    assert seen == []
    assert told.count("trainer.max_epochs=-1: must be at least 1.") == 1
    assert "seed-0 and 2 more" in told


def test_a_sweep_that_cannot_begin_is_told_like_any_mistake(launch, tmp_path):  # noqa: F811
    code, told, _ = launch("-m", "arch=alexnet,vg13")
    assert code == 2
    assert "Did you mean arch=vgg13?" in told
    assert not list(tmp_path.glob("outputs/sweeps/*/*/"))


def test_a_missing_plugin_names_its_extra(launch, monkeypatch):  # noqa: F811
    from hydra.core.config_store import ConfigStore

    group = ConfigStore.instance().repo["hydra"]["launcher"]
    monkeypatch.delitem(group, "joblib.yaml", raising=False)
    code, told, _ = launch("-m", "launcher=joblib", "seed=0,1")
    assert code == 2
    assert told.strip() == "joblib: not installed. Run: pip install 'camlab[sweep]'"


# ---- resuming


@pytest.mark.slow
def test_the_same_command_skips_what_is_finished_and_retries_what_failed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sweep = [*QUICK, "-m", "seed=0,1", "data.val_size=20,99"]  # 99 of 40 images are too many: a mistake of the user
    assert command(monkeypatch, train.main, *sweep) == 2
    (folder,) = (tmp_path / "outputs" / "sweeps").iterdir()
    results = {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("*/result.json")}
    assert sorted(results) == ["data.val_size-20_seed-0", "data.val_size-20_seed-1"]
    assert len(list(folder.glob("*/failure.json"))) == 2
    table = (folder / "summary.md").read_text()
    assert "val % best" in table
    assert "2 finished" in table
    assert "2 failed" in table

    assert command(monkeypatch, train.main, *sweep) == 2
    assert results == {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("*/result.json")}
    assert command(monkeypatch, train.main, *sweep, "force=true") == 2
    redone = {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("*/result.json")}
    assert all(redone[name] > results[name] for name in results)


@pytest.mark.slow
def test_a_job_goes_by_its_folder_in_wandb(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [a for a in QUICK if a != "logger=csv"]
    assert command(monkeypatch, train.main, *arguments, "-m", "seed=3", "mode=frozen,finetune", "sweep=ours") == 0
    from test_tracking import offline_runs, records

    about = []
    for name in ("mode-finetune", "mode-frozen"):
        (run,) = offline_runs(tmp_path / "outputs" / "sweeps" / "ours" / name)
        about.append(next(r["run"] for r in records(run) if r["type"] == "run"))
    assert [(a["display_name"], a["run_group"]) for a in about] == [("mode-finetune", "ours"), ("mode-frozen", "ours")]
    assert about[1]["tags"] == ["alexnet", "frozen", "shapes"]


@pytest.mark.slow
def test_a_folder_in_which_another_process_trains_is_refused(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    with run_folder.locked(folder, wait=False):
        assert command(monkeypatch, train.main, *QUICK, f"hydra.run.dir={folder}") == 2
    assert "another process is training there" in capsys.readouterr().err
    assert command(monkeypatch, train.main, *QUICK, f"hydra.run.dir={folder}") == 0


@pytest.mark.slow
def test_a_sweep_started_twice_shares_its_jobs_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = [*QUICK, "-m", "seed=0,1", "sweep=shared", "mode=frozen"]
    taken = tmp_path / "outputs" / "sweeps" / "shared" / "seed-0"
    taken.mkdir(parents=True)
    with run_folder.locked(taken, wait=False):
        assert command(monkeypatch, train.main, *sweep) == 0
    assert not (taken / run_folder.RESULT).exists()
    assert not (taken / run_folder.FAILURE).exists()
    assert (taken.parent / "seed-1" / run_folder.RESULT).exists()


@pytest.mark.slow
def test_optuna_returns_the_best_validation_accuracy_and_refuses_to_choose_by_the_test_images(
    tmp_path, monkeypatch, capsys
):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    monkeypatch.chdir(tmp_path)
    sweep = [*QUICK, "mode=frozen", "-m", "sweeper=optuna", "hydra.sweeper.n_trials=2"]
    assert command(monkeypatch, train.main, *sweep, "sweep=tuned") == 0
    folder = tmp_path / "outputs" / "sweeps" / "tuned"
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("*/result.json"))]
    assert len(results) == 2
    found = (folder / "optimization_results.yaml").read_text()
    assert f"best_value: {max(r['metrics']['val/best_acc'] for r in results)}"[:20] in found
    rates = [float(path.parent.name.removeprefix("optimizer.lr-")) for path in folder.glob("*/result.json")]
    assert all(1e-5 <= rate <= 1e-2 for rate in rates)

    assert command(monkeypatch, train.main, *sweep, "data.val_size=0") == 2
    told = capsys.readouterr().err
    assert "data.val_size=0: this search compares its jobs by validation images" in told
    assert "2 jobs failed." in told
    assert not re.search("Error executing job|Traceback|No trials", told)


@pytest.mark.slow
def test_optuna_goes_on_after_a_job_that_fails(tmp_path, monkeypatch, capsys):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    monkeypatch.chdir(tmp_path)
    sweep = [*QUICK, "mode=frozen", "-m", "sweeper=optuna", "hydra.sweeper.n_trials=3", "sweep=tuned"]
    rates = "optimizer.lr=choice(-1,0.01)"  # the first is refused
    assert command(monkeypatch, train.main, *sweep, "hydra.sweeper.params=null", rates) == 2
    folder = tmp_path / "outputs" / "sweeps" / "tuned"
    assert [path.parent.name for path in folder.glob("*/failure.json")] == ["optimizer.lr--1"]
    assert {path.parent.name for path in folder.glob("*/result.json")} == {"optimizer.lr-0.01"}
    assert (folder / "optimization_results.yaml").is_file()
    assert "Error executing job" not in capsys.readouterr().err


# ---- launchers, as processes


def sweep_process(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "HOME": str(folder), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "camlab.train", "-m", *QUICK, *arguments]
    return subprocess.Popen(
        line, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, process_group=0
    )


def finished(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("outputs/sweeps/*/*/result.json")}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit_local", "ray"])
def test_a_sweep_of_two_jobs_and_one_that_fails(tmp_path, launcher):
    if launcher != "basic":
        pytest.importorskip(f"hydra_plugins.hydra_{launcher.removesuffix('_local')}_launcher")
    rates = ["optimizer.lr=0.01,0.001,-1", "mode=frozen", "trainer.max_epochs=2"]
    process = sweep_process(tmp_path, f"launcher={launcher}", *rates)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 2, said
    assert sorted(finished(tmp_path)) == ["optimizer.lr-0.001", "optimizer.lr-0.01"]
    assert "optimizer.lr--1: optimizer.lr=-1: must be greater than 0." in said
    assert "Error executing job" not in said
    if launcher in ("basic", "joblib"):
        for name in ("optimizer.lr-0.001", "optimizer.lr-0.01"):
            assert re.search(rf"^\[{name}\] epoch 2/2 done", said, re.MULTILINE), said
        assert "[optimizer.lr--1] This job failed: " in said
    assert re.search(r"0\.01 .*finished", said), said
    assert len(list(tmp_path.glob("cache/features/*.npy"))) == 2, "both share the features of train and val"


@pytest.mark.slow
def test_killed_in_the_middle_the_same_command_goes_on(tmp_path):
    arguments = ["seed=0,1,2", "mode=frozen", "trainer.max_epochs=40", "cache=false"]
    process = sweep_process(tmp_path, *arguments)
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("outputs/sweeps/*/seed-1/checkpoints/last.ckpt")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("outputs/sweeps/*/*/result.json")}
    assert [path.parent.name for path in before] == ["seed-0"]

    said, _ = (process := sweep_process(tmp_path, *arguments)).communicate(timeout=300)
    assert process.returncode == 0, said
    assert sorted(finished(tmp_path)) == ["seed-0", "seed-1", "seed-2"]
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    assert re.search(r"Resuming from .*seed-1/checkpoints/last.ckpt", said)
    assert "seed-0 is finished" in said


@pytest.mark.slow
def test_a_job_that_runs_out_of_time_is_queued_again_and_goes_on(tmp_path):
    """submitit treats this like SLURM's pre-emption: the job gets a signal and is started again."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    process = sweep_process(
        tmp_path, "launcher=submitit_local", "seed=0", "trainer.max_epochs=100", "cache=false", "mode=frozen"
    )
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("outputs/sweeps/*/*/checkpoints/last.ckpt")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (job,) = (p for p in psutil.Process(process.pid).children(recursive=True) if "submitit.core._submit" in p.cmdline())
    job.send_signal(signal.SIGUSR2)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    logs = "".join(path.read_text() for path in tmp_path.glob("outputs/sweeps/*/.submitit/*/*_log.*"))
    assert "Resuming from" in logs
    assert [result["epochs"] for result in finished(tmp_path).values()] == [100]
