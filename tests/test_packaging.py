"""A wheel that is installed elsewhere works like the checkout and contains its own conf/."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    built = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=CHECKOUT)
    assert built.returncode == 0, built.stderr
    return next(folder.glob("camlab-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel; its dependencies come from this environment's site-packages."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, symlinks=True)
    site_packages = next(folder.glob("lib/python3*/site-packages"))
    # A folder that a .pth file names is put on the path. The .pth files in it, such as the editable camlab's, are not
    # read.
    ours = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site_packages / "dependencies.pth").write_text("\n".join(sorted(ours)))
    done = run(folder / "bin" / "python", "-m", "installer", wheel, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_wheel_carries_every_config_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    configs = {f"camlab/{path.relative_to(CHECKOUT)}" for path in CHECKOUT.glob("conf/**/*.yaml")}
    assert configs == {name for name in names if name.endswith((".yaml", ".yml"))}
    assert {name.split("/")[0].split("-")[0] for name in names} == {"camlab"}
    page = {str(path.relative_to(CHECKOUT)) for path in CHECKOUT.glob("camlab/viewer/page/*")}
    assert page == {name for name in names if name.endswith((".html", ".css", ".js"))}


@pytest.mark.parametrize("command", ["camlab-train", "camlab-evaluate"])
def test_installed_command_reads_the_conf_of_the_wheel(command: str, installed: Path, tmp_path: Path) -> None:
    script = installed / "bin" / command
    shown = run(script, "--help", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "trainer" in shown.stdout

    searched = run(script, "--info", "searchpath", cwd=tmp_path)
    assert searched.returncode == 0, searched.stderr
    paths = [cell.strip() for line in searched.stdout.splitlines() for cell in line.split("|")]
    main = [Path(path.removeprefix("file://")) for path in paths if path.startswith("file://")]
    assert main == [next(installed.glob("lib/python3*/site-packages")) / "camlab" / "conf"]


def test_installed_command_tells_a_mistake_with_exit_code_2(installed: Path, tmp_path: Path) -> None:
    done = run(installed / "bin" / "camlab-train", "trainer.max_epochs=0", cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "trainer.max_epochs" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir()), "a refused configuration must leave no files"
