"""Command that prints a table of runs, finished or not: `python -m camlab.summary outputs/sweeps/…`."""

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

from camlab.command_line import output
from camlab.errors import UserError
from camlab.runs.records import read_run
from camlab.runs.table import NAME, compare


def main() -> None:
    """Run the command `camlab-summary`.

    The exit code is 2 for a mistake or if there are no runs, and 141 if the program that read its output, such as
    `head`, had ended before.
    """
    output.prepare_output()
    lost = 0
    try:
        _summarize(_parser().parse_args([*map(_as_option, sys.argv[1:])]))
    except OSError as error:
        if not output.is_of_output(error):
            raise
    except SystemExit as end:
        if end.code:
            raise
    finally:
        lost = output.end_output()
    if lost:
        sys.exit(lost)


def _summarize(arguments: argparse.Namespace) -> None:
    folders = [Path(os.path.expanduser(folder)) for folder in arguments.folders]
    out = Path(os.path.expanduser(arguments.out)) if arguments.out else folders[0]
    if not arguments.out and read_run(out):
        _refuse(f"{out} is a run's own folder. Give another folder for the table with out=FOLDER.")
    if missing := [folder for folder in folders if not os.path.isdir(folder)]:
        _refuse(f"{missing[0]}: no such folder.")
    try:
        compared = compare(folders, out)
    except UserError as error:
        _refuse(str(error).replace("another folder", "out=FOLDER"))
    except OSError as error:
        if output.is_of_output(error):
            raise
        _refuse(f"{error.filename}: {error.strerror}. Give another folder for the table with out=FOLDER.")
    if not compared.groups:
        _refuse(f"{', '.join(map(str, folders))}: no runs of camlab were found there.")
    count = len(compared.runs)
    print(f"{count} {'run' if count == 1 else 'runs'}; written to {out}: {NAME}.csv, {NAME}.md, {NAME}.png")


def _as_option(argument: str) -> str:
    """Take `out=FOLDER`, as the other commands do, beside `--out FOLDER`."""
    return f"--{argument}" if argument.startswith("out=") else argument


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        _refuse(f"{message[0].upper()}{message[1:]}. Usage: python -m camlab.summary FOLDER… [out=FOLDER]")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="camlab.summary",
        description="Compare runs in a table. It shows the settings that differ, the accuracy, the loss, the scores of"
        " the heatmaps and the time. Runs that differ in their seed only share a row, with mean ± standard deviation."
        f" The table is printed and written as {NAME}.csv and {NAME}.md, with a chart in {NAME}.png.",
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="searched for runs, with all its subfolders")
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        help="folder for the files, also given as out=FOLDER; by default the first FOLDER, unless"
        " that is the folder of a run",
    )
    return parser


def _refuse(message: str) -> NoReturn:
    output.print_error(message)
    sys.exit(2)


if __name__ == "__main__":
    main()
