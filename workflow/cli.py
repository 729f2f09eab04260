"""The command line: one sub-command per product for the rules, the rest for people."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from workflow import __version__
from workflow.errors import BuildError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        Exit status: 0, or 2 after an expected error, which is one message on stderr.
    """
    from workflow.disk import one_line

    options = _parser().parse_args(arguments)
    try:
        with one_line(Path.cwd()):
            options.run(options)
    except BuildError as error:
        from workflow.progress import say

        say(f"Error: {error}")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tunemake", description=__import__("workflow").__doc__)
    parser.add_argument("--version", action="version", version=f"tunemake {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _people(commands)
    _rules(commands)
    return parser


def _people(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    check = commands.add_parser("check", help="validate a recipe; list its products and what exists")
    check.add_argument("recipe", type=Path, nargs="+", help="recipe file, e.g. recipes/x.yaml")
    check.set_defaults(run=_check)
    new = commands.add_parser("new", help="write a commented recipe to start from")
    new.add_argument("name", help="name of the new recipe")
    new.set_defaults(run=_new)
    lock = commands.add_parser("lock", help="write the hub's newest commit where a recipe says `unpinned`")
    lock.add_argument("recipe", type=Path, help="recipe file")
    lock.set_defaults(run=_lock)
    forget = commands.add_parser("forget", help="drop a product; the next build makes it again")
    forget.add_argument("recipe", help="recipe name")
    forget.add_argument("product", help="product name, e.g. adapter")
    forget.set_defaults(run=_forget)
    table = commands.add_parser("table", help="print the published scores of a recipe as a table")
    table.add_argument("recipe", help="recipe name")
    table.set_defaults(run=_table)
    schema = commands.add_parser("schema", help="write the JSON Schemas and the field reference")
    schema.add_argument("--folder", type=Path, default=Path("schemas"), help="where to (default: schemas)")
    schema.set_defaults(run=_schema)
    puzzles = commands.add_parser("puzzles", help="print generated logic puzzles, round1 rows as JSON lines")
    puzzles.add_argument("--count", type=int, required=True, help="number of puzzles")
    puzzles.add_argument("--seed", type=int, default=0, help="seed; another one gives other puzzles")
    puzzles.add_argument("--split", choices=("train", "test"), default="train", help="no puzzle is in both")
    puzzles.add_argument("--factors", type=int, nargs=2, default=(2, 9), help="smallest and largest factor")
    puzzles.set_defaults(run=_puzzles)
    doctor = commands.add_parser("doctor", help="check versions, GPUs, disk and known-bad combinations")
    doctor.set_defaults(run=_doctor)


def _rules(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from workflow.products import PRODUCTS

    for product in PRODUCTS:
        command = commands.add_parser(product, help=f"make one {product} (called by the rule)")
        command.add_argument("--address", required=True, help="what to make: 32 hex digits, planned before")
        command.add_argument("--log", type=Path, help="file for what libraries print")
        command.add_argument("--threads", type=int, default=1, help="CPU threads")
        command.add_argument("--gpus", type=int, default=0, help="GPUs")
        command.set_defaults(run=_make, product=product)
    publish = commands.add_parser("publish", help="show a product in results/ (called by the rule)")
    publish.add_argument("--recipe", required=True, help="recipe name")
    publish.add_argument("--name", required=True, help="name under results/<recipe>/")
    publish.add_argument("--stamp", type=Path, required=True, help="stamp of the product")
    publish.add_argument("--log", type=Path, help="file for what is printed")
    publish.set_defaults(run=_publish)


def _make(options: argparse.Namespace) -> None:
    from workflow.death import die_with_parent

    die_with_parent()
    from workflow.products import MAKERS
    from workflow.progress import redirect
    from workflow.store.build import Resources, build
    from workflow.store.store import Store

    redirect(options.log)
    resources = Resources(threads=options.threads, gpus=options.gpus)
    build(Store.here(), options.product, options.address, lambda job: MAKERS[options.product](job), resources)


def _publish(options: argparse.Namespace) -> None:
    from workflow.progress import redirect
    from workflow.publish import publish
    from workflow.settle import RESULTS
    from workflow.store.store import Store

    redirect(options.log)
    publish(Store.here(), RESULTS / options.recipe, options.name, options.stamp)


def _check(options: argparse.Namespace) -> None:
    from workflow.inspection import describe

    for path in options.recipe:
        print(describe(path))


def _new(options: argparse.Namespace) -> None:
    from workflow.starting import new_recipe

    for path in new_recipe(options.name, Path.cwd()):
        print(f"wrote {path}")


def _lock(options: argparse.Namespace) -> None:
    from workflow.hub import lock

    print(lock(options.recipe))


def _forget(options: argparse.Namespace) -> None:
    from workflow.settle import forget

    print(forget(options.recipe, options.product))


def _table(options: argparse.Namespace) -> None:
    from workflow.show import summary

    print(summary(options.recipe))


def _schema(options: argparse.Namespace) -> None:
    from workflow.reference import write_reference
    from workflow.schemas import write_all

    fields = options.folder.absolute().parent / "docs" / "fields.md"
    for path in (*write_all(options.folder), write_reference(fields)):
        print(f"wrote {path}")


def _puzzles(options: argparse.Namespace) -> None:
    import json

    from workflow.puzzles import puzzles

    low, high = options.factors
    for row in puzzles(options.count, options.seed, options.split, factors=(low, high)):
        print(json.dumps(row, ensure_ascii=False))


def _doctor(options: argparse.Namespace) -> None:
    from workflow.doctor import examine

    report = examine()
    print(report.text)
    if report.problems:
        raise BuildError(f"{report.problems} problem(s) found; each line above says what to do")


if __name__ == "__main__":
    sys.exit(main())
