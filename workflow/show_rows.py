"""Training rows in a terminal, token by token, and what the data gate counted: `tunemake show --rows`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from workflow.encoding import backend_of
from workflow.errors import BuildError
from workflow.gate import of_overlap, of_rows, share
from workflow.graph import Draw
from workflow.node import Node
from workflow.settle import last_files
from workflow.store.build import intact
from workflow.store.store import Store
from workflow.tokens import TokenRow, read_rows
from workflow.tokens_shown import Piece, first_rows, pieces, visible

BEGIN, END, BETWEEN = "⟦", "⟧", "│"
"""What stands around trained tokens, and between tokens, where there are no colours."""
_COLOURS = {False: ("\x1b[2m", "\x1b[22m"), True: ("\x1b[30;42m", "\x1b[30;102m")}
_OFF = "\x1b[0m"


def colours() -> bool:
    """Whether to write colours: to a terminal that has some, unless somebody said NO_COLOR."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def show_rows(draw: Draw, recipe: str, count: int, id: str | None, colour: bool) -> str:
    """Some training rows of a recipe (test rows where it trains nothing), and what the gate counted.

    Args:
        draw: What draws the recipe, and where it is built.
        recipe: Its name.
        count: How many rows, first by the hash of their ids.
        id: The one row to show instead.
        colour: Whether to write colours, else marks.

    Raises:
        BuildError: They are not built, or there is no such row.
    """
    graph, store = draw.recipe(recipe), draw.store
    name = "shards_train" if "shards_train" in graph.products else "shards_test"
    node = graph.node(name)
    folder, counts = _built(store, node, recipe, last_files(graph)[0])
    backend = backend_of(_built(store, node.inputs["tokenizer"], recipe, last_files(graph)[0])[0])
    rows = first_rows(folder, count) if id is None else [row for row in read_rows(folder) if row.id == id]
    if not rows:
        raise BuildError(f"{recipe}: {name} has no row {id!r}; it may have been left out as too long")
    marked = "green" if colour else f"between {BEGIN} and {END}, a {BETWEEN} between any two tokens"
    parts = [f"{name} of {recipe}: {len(rows)} of {counts['rows']:,} rows; trained tokens are {marked}"]
    parts += [f"{_title(row)}\n{_painted(pieces(row, backend), colour)}" for row in rows]
    return "\n\n".join([*parts, "\n".join(_said(store, graph.products, counts, name == "shards_train"))])


def _built(store: Store, node: Node, recipe: str, target: str) -> tuple[Path, dict[str, Any]]:
    receipt = store.built(node.product, node.address)
    if receipt is None:
        raise BuildError(
            f"{recipe}: {node.product} {node.address[:8]} is not built; run `snakemake "
            f"results/{recipe}/{target} --until shards overlap --cores all`, which needs no GPU"
        )
    return intact(store, receipt), receipt.manifest.counts


def _said(store: Store, products: dict[str, Node], counts: dict[str, Any], train: bool) -> Iterator[str]:
    yield from of_rows(counts, train)
    node = products.get("overlap")
    if node and (receipt := store.built("overlap", node.address)):
        yield from of_overlap(receipt.manifest.counts)


def _title(row: TokenRow) -> str:
    trained, tokens = int(row.trained.sum()), len(row.input_ids)
    cut = f"; {row.outcome}, {row.cut_tokens} tokens cut" if row.outcome != "kept" else ""
    return f"row {visible(row.id)}: {tokens} tokens, {trained} trained ({share(trained, tokens)}){cut}"


def _painted(found: Sequence[Piece], colour: bool) -> str:
    if colour:
        return "".join(
            "\n".join(f"{_COLOURS[piece.trained][i % 2]}{line}{_OFF}" if line else "" for line in lines)
            for i, piece in enumerate(found)
            for lines in [visible(piece.text).split("\n")]
        )
    shown, before = "", None
    for piece in found:
        if piece.trained and not before:
            shown += BEGIN
        elif before and not piece.trained:
            shown += END
        elif before is not None:
            shown += BETWEEN
        shown, before = shown + visible(piece.text), piece.trained
    return shown + (END if before else "")
