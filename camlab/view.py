"""Command that writes a page to browse the heatmaps of runs: `python -m camlab.view RUN [RUN…]`."""

import os
import sys
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from camlab.command_line import output
from camlab.errors import UserError, cut, did_you_mean
from camlab.runs import run_folder
from camlab.storage.files import user_path
from camlab.viewer.html import MEGABYTES, write_page

USAGE = "Usage: python -m camlab.view RUN [RUN…] [out=FILE.html] [open=false] [max_mb=32]"
_HELP = f"""camlab.view writes one HTML file in which heatmaps are browsed: every epoch, class and method. Several runs,
or several folders of camlab.explain or of camlab.score, are shown side by side. The file needs neither a server nor a
network.

{USAGE}

  RUN       folder of a run, of camlab.explain or of camlab.score, or a folder that holds some, such as a sweep;
            where it holds runs, folders of the other commands below it are left out
  out       the file; by default {run_folder.VIEWER} in the first folder
  open      whether to open the file in the browser, if there is a screen (default: true)
  max_mb    largest size of the file in megabytes; of more, epochs are left out evenly (default: {MEGABYTES:g})
"""
_SETTINGS = ("out", "open", "max_mb")


@dataclass(frozen=True)
class _Job:
    folders: list[Path]
    out: Path
    opens: bool
    megabytes: float


def main() -> None:
    """Run the command `camlab-view`. The exit code is 2 for a mistake, or if the page cannot be written."""
    output.prepare_output()
    lost = 0
    try:
        if {"-h", "--help"} & set(sys.argv[1:]):
            print(_HELP, end="")
        else:
            _view(_job(sys.argv[1:]))
    except UserError as error:
        output.print_error(str(error))
        sys.exit(2)
    except OSError as error:
        if not output.is_of_output(error):
            raise
    finally:
        lost = output.end_output()
    if lost:
        sys.exit(lost)


def _view(job: _Job) -> None:
    try:
        size = write_page(job.folders, job.out, job.megabytes)
    except OSError as error:
        if output.is_of_output(error):
            raise
        is_new = str(error.filename).endswith(".partial")  # it becomes the page once it is whole
        place = job.out if is_new or not error.filename else error.filename
        raise UserError(f"{place}: {error.strerror or error}. Give another file with out=FILE.html.") from error
    print(f"{job.out} ({size / 1e6:.1f} MB): open it in a browser.")
    if job.opens and _has_screen():
        webbrowser.open(job.out.absolute().as_uri())


def _job(arguments: Sequence[str]) -> _Job:
    """Read the command line.

    Raises:
        UserError: It makes no sense.
    """
    settings, folders = {}, []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if equals and key in _SETTINGS:
            settings[key] = value
        elif (equals or argument.startswith("-")) and not os.path.isdir(argument):
            hint = did_you_mean(key.lstrip("-"), _SETTINGS)
            raise UserError(f"{cut(argument)}: unknown setting. {hint}{USAGE}")
        else:
            folders.append(user_path(argument, "RUN"))
    if not folders:
        raise UserError(f"No run was given. {USAGE}")
    out = user_path(settings["out"], "out") if "out" in settings else folders[0] / run_folder.VIEWER
    if out.is_dir():
        out = out / run_folder.VIEWER
    return _Job(folders, out, _truth(settings.get("open", "true")), _megabytes(settings.get("max_mb", str(MEGABYTES))))


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise UserError(f"open={cut(text)}: must be true or false.")
    return text.lower() == "true"


def _megabytes(text: str) -> float:
    try:
        megabytes = float(text)
    except ValueError:
        megabytes = 0.0
    if not 1 <= megabytes <= 500:
        raise UserError(f"max_mb={cut(text)}: must be a number from 1 to 500.")
    return megabytes


def _has_screen() -> bool:
    """Whether there is a screen; without one, a browser in the terminal would be started."""
    return sys.platform in ("darwin", "win32") or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())


if __name__ == "__main__":
    main()
