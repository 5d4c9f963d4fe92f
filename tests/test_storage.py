"""Files that are written whole or not at all, and locks between processes."""

import multiprocessing
import os
import stat
import time
from pathlib import Path

import pytest

from camlab.storage.files import leftovers, open_atomically, remove_leftovers, write_atomically
from camlab.storage.locks import Locked, locked


def test_text_and_bytes(tmp_path):
    write_atomically(tmp_path / "a", "grün")
    assert (tmp_path / "a").read_text(encoding="utf-8") == "grün"
    write_atomically(tmp_path / "a", b"\0\xff")
    assert (tmp_path / "a").read_bytes() == b"\0\xff"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_failed_write_leaves_the_file_and_nothing_else(tmp_path):
    write_atomically(tmp_path / "a", "before")

    def fail() -> None:
        with open_atomically(tmp_path / "a") as file:
            file.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (tmp_path / "a").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_symbolic_link_is_replaced_and_not_written_through(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    write_atomically(tmp_path / "link", "new")
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "precious").read_text() == "precious"


def test_temporary_files_are_new_and_cannot_be_predicted(tmp_path):
    names = []
    for _ in range(2):
        with open_atomically(tmp_path / "a") as file:
            names.append(file.name)
            with pytest.raises(FileExistsError):
                os.open(file.name, os.O_CREAT | os.O_EXCL)
    assert names[0] != names[1]


def test_permissions_are_those_of_any_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_name_of_the_greatest_length(tmp_path):
    name = "ö" * 127
    write_atomically(tmp_path / name, "whole")
    assert (tmp_path / name).read_text() == "whole"


def test_leftovers_of_killed_processes(tmp_path):
    for name in ("a.json", "b.json"):
        with open_atomically(tmp_path / name) as file:
            os.link(file.name, tmp_path / f".{name}.0123456789abcdef.partial")  # what a SIGKILL would leave
        (tmp_path / name).unlink()
    assert len(leftovers(tmp_path)) == 2
    remove_leftovers(tmp_path, "a.json")
    assert [path.name[:7] for path in leftovers(tmp_path)] == [".b.json"]
    for name in (".a.json.partial", ".a.json.rsync.partial", "a.json.0123456789abcdef.partial"):
        (tmp_path / name).touch()  # of other programs
    (tmp_path / ".c.0123456789abcdef.partial").symlink_to(tmp_path)
    remove_leftovers(tmp_path)
    assert len(list(tmp_path.iterdir())) == 4
    assert not leftovers(tmp_path / "nowhere")


def test_a_link_in_the_place_of_a_lock_is_replaced(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "lock").symlink_to(tmp_path / "precious")
    with locked(tmp_path / "lock", wait=False):
        pass
    assert not (tmp_path / "lock").is_symlink()
    assert (tmp_path / "precious").read_text() == "precious"


def hold(path: Path, seconds: float) -> None:
    with locked(path):
        path.with_suffix(".held").touch()
        time.sleep(seconds)


def test_a_lock_is_waited_for_or_not(tmp_path, caplog):
    caplog.set_level("INFO")
    path = tmp_path / "lock"
    process = multiprocessing.get_context("fork").Process(target=hold, args=(path, 1.0))
    process.start()
    while not path.with_suffix(".held").exists():
        time.sleep(0.01)
    with pytest.raises(Locked), locked(path, wait=False):
        pass
    with locked(path, notice="Waiting."):
        assert not process.is_alive() or process.join(1) is None
    assert [record.getMessage() for record in caplog.records] == ["Waiting."]
    with pytest.raises(ZeroDivisionError), locked(path):
        raise ZeroDivisionError
    with locked(path, wait=False):
        pass
