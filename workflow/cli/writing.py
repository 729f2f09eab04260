"""Commands that write or look at recipes, and what stands beside them."""

from __future__ import annotations

import argparse
from pathlib import Path

from workflow.cli.terminal import width
from workflow.errors import BuildError


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    check = commands.add_parser("check", help="validate a recipe; show its products and what stops a build")
    check.add_argument("recipe", type=Path, nargs="+", help="recipe file, e.g. recipes/x.yaml")
    check.set_defaults(run=_check)
    new = commands.add_parser("new", help="write a commented recipe to start from")
    new.add_argument("name", help="name of the new recipe")
    new.set_defaults(run=_new)
    lock = commands.add_parser("lock", help="write the hub's newest commit where a recipe says `unpinned`")
    lock.add_argument("recipe", type=Path, help="recipe file")
    lock.add_argument("--data", action="store_true", help="also write the SHA-256 of data files without one")
    lock.set_defaults(run=_lock)
    schema = commands.add_parser("schema", help="write the JSON Schemas and the field reference")
    schema.add_argument("--folder", type=Path, default=Path("schemas"), help="where to (default: schemas)")
    schema.set_defaults(run=_schema)
    puzzles = commands.add_parser("puzzles", help="print generated logic puzzles, round1 rows as JSON lines")
    puzzles.add_argument("--count", type=int, required=True, help="number of puzzles")
    puzzles.add_argument("--seed", type=int, default=0, help="seed; another one gives other puzzles")
    puzzles.add_argument("--split", choices=("train", "test"), default="train", help="no puzzle is in both")
    puzzles.add_argument("--factors", type=int, nargs=2, default=(2, 9), help="smallest and largest factor")
    puzzles.set_defaults(run=_puzzles)
    commands.add_parser("doctor", help="check versions, GPUs and disk").set_defaults(run=_doctor)


def _check(options: argparse.Namespace) -> None:
    from workflow.inspection import describe

    stops: list[str] = []
    for path in options.recipe:
        text, found = describe(path, width())
        print(text)
        stops += found
    if stops:
        raise BuildError("before it can be built:\n" + "\n".join(f"  {stop}" for stop in stops))


def _new(options: argparse.Namespace) -> None:
    from workflow.starting import new_recipe

    for path in new_recipe(options.name, Path.cwd()):
        print(f"wrote {path}")


def _lock(options: argparse.Namespace) -> None:
    from workflow.hub import lock
    from workflow.pinning import pin_data
    from workflow.recipe import load_recipe

    if options.data:
        print("\n".join(pin_data(options.recipe)))
    if load_recipe(options.recipe).model.is_hub or not options.data:
        print(lock(options.recipe))


def _schema(options: argparse.Namespace) -> None:
    from workflow.reference import write_reference
    from workflow.schemas import write_all

    fields = options.folder.absolute().parent / "docs" / "fields.md"
    for path in (*write_all(options.folder), write_reference(fields)):
        print(f"wrote {path}")


def _puzzles(options: argparse.Namespace) -> None:
    import json

    from workflow.puzzles import puzzles

    for row in puzzles(options.count, options.seed, options.split, factors=options.factors):
        print(json.dumps(row, ensure_ascii=False))


def _doctor(options: argparse.Namespace) -> None:
    from workflow.doctor import examine

    report = examine()
    print(report.text)
    if report.problems:
        raise BuildError(f"{report.problems} problem(s) found; each line above says what to do")
