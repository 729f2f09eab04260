"""Commands that say what a build would do, and what it came to."""

from __future__ import annotations

import argparse
import gc
from pathlib import Path

from workflow.cli.terminal import width
from workflow.errors import BuildError


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
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
    table = commands.add_parser("table", help="print the published scores of a recipe as a table")
    table.add_argument("recipe", help="recipe name")
    table.set_defaults(run=_table)


def _why(options: argparse.Namespace) -> None:
    from workflow.store.store import Store
    from workflow.why import explain

    print(explain(options.target, Store.here(), width())[0])


def _plan(options: argparse.Namespace) -> None:
    from workflow.forecast import forecast
    from workflow.recipe.load import everything
    from workflow.settle import default_recipes
    from workflow.store.store import Store
    from workflow.why import asked, explain

    gc.disable()  # all that is read stays in use until the end; looking for garbage takes a fifth of the time
    recipes = [asked(name)[1] for name in options.recipe] or default_recipes()
    if options.all:
        recipes = everything(Path("recipes"))
    one = len(options.recipe) == 1 and not options.all
    text, stops = (
        explain(options.recipe[0], Store.here(), width()) if one else forecast(recipes, Store.here())
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
        print(show(recipe, folder, Store.here(), width()))


def _table(options: argparse.Namespace) -> None:
    from workflow.show import summary

    print(summary(options.recipe))
