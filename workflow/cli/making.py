"""Commands that the rules call: one per product, and publishing."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
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
    folder = RESULTS / options.recipe
    publish(Store.here(), folder, options.name, options.stamp, options.recipe)
