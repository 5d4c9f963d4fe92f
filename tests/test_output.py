"""Commands do their work even if standard output is closed, full, no longer read or not UTF-8; one line reports it."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from camlab.command_line.output import PlainFormatter

WORK = """
import logging
from pathlib import Path
from camlab.command_line.launch import launch

def work(config):
    for i in range(2000):
        logging.getLogger("work").info("line %d: ×", i)
    Path("done").write_text("whole")

launch(work, "train", ["hydra.run.dir=run"])
"""


def test_log_lines_are_plain_text():
    record = logging.LogRecord("x", logging.INFO, "", 0, "%s: %d\nof 3", ("a\x1b[2J\r\x9b", 2), None)
    assert PlainFormatter("[job] %(message)s").format(record) == "[job] a\\x1b[2J\\r\\x9b: 2\nof 3"
    hydras = logging.LogRecord("x", logging.INFO, "", 0, "\t#0 : arch=vgg13", None, None)
    assert PlainFormatter("%(message)s").format(hydras) == "    #0 : arch=vgg13"


HELP = "from camlab.train import main; main()"
SUMMARY = "from camlab.summary import main; main()"
COMMANDS = {"work": ["-c", WORK], "help": ["-c", HELP, "--help"], "summary": ["-c", SUMMARY, "--help"]}


def shell(redirected: str, command: str, cwd: Path, **surroundings: str) -> tuple[int, str]:
    """Exit code and standard error of a command whose output the shell redirects."""
    reader, writer = os.pipe()
    os.close(reader)
    line = f'"$0" "$@" {redirected.format(unread=writer)}'
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        ["bash", "-c", line, sys.executable, *COMMANDS[command]],
        cwd=cwd,
        env={**buffered, "PYTHONPATH": str(Path(__file__).parents[1]), **surroundings},
        capture_output=True,
        text=True,
        timeout=60,
        pass_fds=[writer],
    )
    os.close(writer)
    return done.returncode, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("redirected", "code", "told"),
    [
        (">&-", 0, ""),
        (">&- 2>&- <&-", 0, ""),
        (">/dev/full", 2, "Standard output: No space left on device.\n"),
        (">/dev/full 2>/dev/full", 2, ""),
        (">&{unread}", 141, ""),
    ],
)
def test_output_that_cannot_be_written(tmp_path, command, redirected, code, told):
    assert shell(redirected, command, tmp_path) == (code, told)
    assert command != "work" or (tmp_path / "done").read_text() == "whole", "the work goes on"


@pytest.mark.parametrize("command", ["work", "help"])
def test_a_terminal_that_shows_only_ascii(tmp_path, command):
    assert shell(">out", command, tmp_path, PYTHONIOENCODING="ascii") == (0, "")
    assert r"\xd7" in (tmp_path / "out").read_text(encoding="ascii")


def test_no_file_of_a_run_gets_the_number_of_a_closed_stream(tmp_path):
    code = "import os; from camlab.command_line.output import prepare_output; prepare_output(); print(os.open('x', 65))"
    line = f'"{sys.executable}" -c "{code}" >&- 2>&- <&-; ls -l x >ls'
    subprocess.run(["bash", "-c", line], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])})
    assert (tmp_path / "x").read_bytes() == b"", "what was printed did not go into a file"
