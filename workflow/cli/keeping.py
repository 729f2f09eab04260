"""Commands that look after the store."""

from __future__ import annotations

import argparse
from pathlib import Path

from workflow.errors import BuildError


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
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
