"""The command line: one sub-command per product for the rules, the rest for people."""

from __future__ import annotations

import argparse
import gc
import shutil
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
    check = commands.add_parser("check", help="validate a recipe; show its products and what stops a build")
    check.add_argument("recipe", type=Path, nargs="+", help="recipe file, e.g. recipes/x.yaml")
    check.set_defaults(run=_check)
    _explaining(commands)
    new = commands.add_parser("new", help="write a commented recipe to start from")
    new.add_argument("name", help="name of the new recipe")
    new.set_defaults(run=_new)
    lock = commands.add_parser("lock", help="write the hub's newest commit where a recipe says `unpinned`")
    lock.add_argument("recipe", type=Path, help="recipe file")
    lock.add_argument("--data", action="store_true", help="also write the SHA-256 of data files without one")
    lock.set_defaults(run=_lock)
    _keeping(commands)
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
    commands.add_parser("doctor", help="check versions, GPUs and disk").set_defaults(run=_doctor)


def _keeping(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    forget = commands.add_parser("forget", help="drop a product; the next build makes it again")
    forget.add_argument("recipe", help="recipe name")
    forget.add_argument("product", help="product name, e.g. adapter")
    forget.set_defaults(run=_forget)
    verify = commands.add_parser("verify", help="compare results byte for byte with what made them")
    verify.add_argument("path", type=Path, help="a published file, or results/<recipe>")
    again = "also make it (or this product) a second time elsewhere and compare"
    verify.add_argument("--rebuild", nargs="?", const="", metavar="PRODUCT", help=again)
    verify.set_defaults(run=_verify)
    gc = commands.add_parser("gc", help="list what nobody needs any more; --delete deletes it")
    gc.add_argument("--delete", action="store_true", help="delete it")
    gc.add_argument("--older-than", metavar="AGE", help="only what was made longer ago, e.g. 7d (w, d, h, m)")
    gc.add_argument(
        "--keep", metavar="RECIPE", nargs="+", default=[], help="spare these though their results are gone"
    )
    gc.set_defaults(run=_gc)


def _explaining(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    meant = "recipe name, recipes/<recipe>.yaml or results/<recipe>"
    why = commands.add_parser("why", help="what a build would make, and which change is the reason")
    why.add_argument("target", help=f"results/<recipe>/<file>, or a {meant}")
    why.set_defaults(run=_why)
    plan = commands.add_parser("plan", help="what a build of many recipes would make, and how long it takes")
    plan.add_argument("recipe", nargs="*", help="recipe names or files; default: what bare snakemake builds")
    plan.add_argument("--all", action="store_true", help="every recipe of the folder")
    plan.set_defaults(run=_plan)
    diff = commands.add_parser("diff", help="compare two recipes, or a recipe with its last build")
    diff.add_argument("one", help=f"{meant} (its last build)")
    diff.add_argument("other", help="the same")
    diff.set_defaults(run=_diff)
    show = commands.add_parser("show", help="the graph of a recipe as a picture, or rows as it trains them")
    show.add_argument("recipe", help=f"a {meant}")
    show.add_argument("--mermaid", action="store_true", help="print a Mermaid flowchart")
    show.add_argument("--rows", type=int, metavar="N", help="print N training rows, token by token")
    show.add_argument("--row", metavar="ID", help="print the training row of this id")
    show.set_defaults(run=_show)


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
    from workflow.death import die_with_parent, leave_nothing_behind

    die_with_parent()
    leave_nothing_behind()
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

    stops: list[str] = []
    for path in options.recipe:
        text, found = describe(path, _width())
        print(text)
        stops += found
    if stops:
        raise BuildError("before it can be built:\n" + "\n".join(f"  {stop}" for stop in stops))


def _width() -> int | None:
    """Columns of the terminal; None where the output goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _why(options: argparse.Namespace) -> None:
    from workflow.store.store import Store
    from workflow.why import explain

    print(explain(options.target, Store.here(), _width())[0])


def _plan(options: argparse.Namespace) -> None:
    from workflow.forecast import forecast
    from workflow.settle import default_recipes
    from workflow.store.store import Store
    from workflow.why import asked, explain

    gc.disable()  # all that is read stays in use until the end; looking for garbage takes a fifth of the time
    recipes = [asked(name)[1] for name in options.recipe] or default_recipes()
    if options.all:
        recipes = sorted(path.stem for path in Path("recipes").glob("*.yaml"))
    one = len(options.recipe) == 1 and not options.all
    text, stops = (
        explain(options.recipe[0], Store.here(), _width()) if one else forecast(recipes, Store.here())
    )
    print(text)
    if stops:
        raise BuildError("not all of it can be built; the lines above say why")


def _diff(options: argparse.Namespace) -> None:
    from workflow.diff import compare
    from workflow.store.store import Store

    print(compare(options.one, options.other, Store.here()))


def _show(options: argparse.Namespace) -> None:
    from workflow.graph import Draw
    from workflow.picture import mermaid, show
    from workflow.store.store import Store
    from workflow.why import asked

    folder, recipe, _ = asked(options.recipe)
    draw = Draw(Store.here(), folder)
    if options.rows or options.row:
        from workflow.show_rows import colours, show_rows

        print(show_rows(draw, recipe, max(1, options.rows or 0), options.row, colours()))
    elif options.mermaid:
        print(mermaid(draw, recipe))
    else:
        print(show(recipe, folder, Store.here(), _width()))


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


def _forget(options: argparse.Namespace) -> None:
    from workflow.forgetting import forget

    print(forget(options.recipe, options.product))


def _verify(options: argparse.Namespace) -> None:
    from workflow.store.store import Store
    from workflow.verification import verify

    print(verify(Store.here(), options.path, options.rebuild))


def _gc(options: argparse.Namespace) -> None:
    from workflow.cleaning import Rules, clean, seconds
    from workflow.store.store import Store

    try:
        age = seconds(options.older_than) if options.older_than else None
    except ValueError:
        raise BuildError(f"--older-than {options.older_than}: not an age; write e.g. 7d or 12h") from None
    print(clean(Store.here(), Path("recipes"), Rules(age, tuple(options.keep), options.delete)))


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

    for row in puzzles(options.count, options.seed, options.split, factors=options.factors):
        print(json.dumps(row, ensure_ascii=False))


def _doctor(options: argparse.Namespace) -> None:
    from workflow.doctor import examine

    report = examine()
    print(report.text)
    if report.problems:
        raise BuildError(f"{report.problems} problem(s) found; each line above says what to do")
