"""Compare runs, finished or under way: `python -m camlab.summary outputs/sweeps/…`."""

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from camlab.runs.report import NAME, compare


def main() -> None:
    """Entry of `camlab-summary`; exit code 2 where there is nothing to compare."""
    arguments = _parser().parse_args()
    folders = [Path(folder).expanduser() for folder in arguments.folders]
    out = Path(arguments.out).expanduser() if arguments.out else folders[0]
    if missing := [folder for folder in folders if not folder.is_dir()]:
        _refuse(f"{missing[0]}: no such folder.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        compared = compare(folders, out)
    except OSError as error:
        _refuse(f"{error.filename}: {error.strerror}. Give another place for the table with --out FOLDER.")
    if not compared.groups:
        _refuse(f"{', '.join(map(str, folders))}: no runs of camlab there.")
    print(f"{len(compared.runs)} runs; written to {out}: {NAME}.csv, {NAME}.md, {NAME}.png")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="camlab.summary",
        description="A table of runs: what varied, accuracy, loss, time; seeds as mean ± std. CSV, Markdown, figure.",
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="searched for runs with all below it")
    parser.add_argument("--out", metavar="FOLDER", help="where summary.{csv,md,png} go; default: the first folder")
    return parser


def _refuse(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
