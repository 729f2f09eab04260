"""The command that sets scores side by side."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    compare = commands.add_parser("compare", help="scores of several recipes, and differences from the first")
    compare.add_argument("recipe", nargs="+", help="recipe, experiments/<name>/<arm>, or experiments/<name>")
    for kind in ("csv", "markdown", "html"):
        compare.add_argument(f"--{kind}", type=Path, metavar="FILE", help=f"also write the table as {kind}")
    compare.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> None:
    from workflow.scoreboard import WRITERS, scoreboard
    from workflow.store.files import write_atomic
    from workflow.store.store import Store

    board = scoreboard(options.recipe, Store.here())
    print(board.text)
    for kind, write in WRITERS.items():
        if path := getattr(options, kind):
            write_atomic(path, write(board).encode("utf-8", "replace"))
            print(f"wrote {path}")
