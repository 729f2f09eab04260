"""`tunemake compare`: the scores of several recipes or arms side by side; nothing is built."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow.earlier import in_results, published
from workflow.errors import BuildError
from workflow.graph import Draw
from workflow.pairing import OF_A_CORPUS, Compared, Paired, compare
from workflow.recipe.load import named
from workflow.report.conclusion import Scale, chance
from workflow.report.page import render
from workflow.results import ITEMS
from workflow.settle import RESULTS
from workflow.show import aligned
from workflow.store.records import Receipt
from workflow.store.store import Store

HEADER = ("", "%", "95 % interval", "n", "difference", "95 % interval", "p")
FIELDS = (
    *("metric", "answers", "recipe", "rows", "value", "low", "high"),
    *("difference", "difference_low", "difference_high", "p", "p_corrected", "test"),
)


@dataclass(frozen=True)
class Board:
    """Recipes that are compared with the first of them, and what is to be said of them besides."""

    paired: Paired
    notes: list[str]

    @property
    def text(self) -> str:
        """One table per metric, for a terminal."""
        tables = [
            "\n".join(line.rstrip() for line in aligned(list(_rows(one)))) for one in self.paired.headlines
        ]
        return "\n\n".join([*tables, "\n".join(self.notes)]).rstrip("\n")

    @property
    def markdown(self) -> str:
        """The same as Markdown tables."""
        parts = []
        for one in self.paired.headlines:
            head, *rows = [[cell.replace("|", "\\|") for cell in row] for row in _rows(one)]
            rule = ["---", *["---:"] * (len(head) - 1)]
            parts.append("\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows)))
        return "\n\n".join([*parts, *self.notes]) + "\n"

    @property
    def csv(self) -> str:
        """All figures, unrounded; also of other ways to answer than the one that a recipe is judged by."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(FIELDS)
        writer.writerows(_record(one, name) for one in self.paired.compared for name in one.figures)
        return out.getvalue()

    @property
    def html(self) -> str:
        """The tables as a page that needs nothing but itself."""
        tables = [list(_rows(one)) for one in self.paired.headlines]
        return render("compare.html.jinja", tables=tables, notes=self.notes)


WRITERS: dict[str, Callable[[Board], str]] = {
    "csv": lambda board: board.csv,
    "markdown": lambda board: board.markdown,
    "html": lambda board: board.html,
}


def scoreboard(targets: Sequence[str], store: Store) -> Board:
    """Compare recipes with the first of them, by the scores that are built or published.

    Args:
        targets: Recipes, arms (`experiments/x/arm`) or experiments, which stand for all their arms; also
            their files and folders in results/.
        store: Where scores are.

    Raises:
        BuildError: Less than two are named, one has no scores yet, or they share no test row.
    """
    draw, notes = Draw(store), list[str]()
    names = list(dict.fromkeys(name for target in targets for name in _names(draw, target)))
    if len(names) < 2:
        raise BuildError("name two or more recipes to compare; the others are compared with the first")
    receipts = {name: _scores(draw, name, notes) for name in names}
    plan = store.plan("scores", receipts[names[0]].address).slice
    files = {name: store.folder("scores", receipt.key) / ITEMS for name, receipt in receipts.items()}
    metrics = [*plan["metrics"], *plan.get("own", {})]
    paired = compare(files, metrics, plan.get("weigh"), plan["resamples"], plan["seed"])
    left = {name: count for name, count in paired.unpaired.items() if count}
    notes += [
        f"{name}: {count} scored rows are left out, since others lack them" for name, count in left.items()
    ]
    return Board(paired, [*_reading(paired), *notes])


def _names(draw: Draw, target: str) -> list[str]:
    path = Path(target)
    shown = in_results(path)
    name = named(path)[1] if path.suffix == ".yaml" else shown[0] if shown else target.rstrip("/")
    is_experiment = name.removeprefix("rehearsal/").count("/") == 1
    return list(draw.recipe(name).arms) if is_experiment else [name]


def _scores(draw: Draw, name: str, notes: list[str]) -> Receipt:
    """The scores of a recipe as it is now, else those that were published last."""
    store = draw.store
    try:
        node = draw.recipe(name).node("scores")
        receipt, problem = store.built("scores", node.address), ""
    except BuildError as error:
        receipt, problem = None, str(error)
    if receipt is not None:
        return receipt
    ref = published(name).get("scores.json")
    receipt = store.built(ref.product, ref.address) if ref else None
    if receipt is None:
        raise BuildError(problem or f"{name}: not scored yet; run `snakemake {RESULTS / name}/scores.json`")
    notes.append(f"{name}: scores of its last build; the recipe or its data changed since")
    return receipt


def _rows(compared: Compared) -> Iterator[tuple[str, ...]]:
    """The header, then a row for each recipe, as texts."""
    scale = Scale.of(compared)
    unit = "%" if scale.unit else "figure"
    yield (f"{compared.metric} ({compared.system})", unit, *HEADER[2:])
    for name, figure in compared.figures.items():
        gain = compared.gains.get(name)
        own = (scale.value(figure.value), f"{scale.value(figure.low)} to {scale.value(figure.high)}")
        p = chance(gain.corrected).removeprefix("p ").removeprefix("= ") if gain else ""
        more = (scale.difference(gain.difference), scale.interval(gain), p) if gain else ("", "", "")
        yield (name, *own, str(compared.rows), *more)


def _record(compared: Compared, name: str) -> list[Any]:
    figure, gain = compared.figures[name], compared.gains.get(name)
    own = [compared.metric, compared.system, name, compared.rows, figure.value, figure.low, figure.high]
    if gain is None:
        return [*own, *[""] * 6]
    return [*own, gain.difference, gain.low, gain.high, gain.p, gain.corrected, gain.test]


def _reading(paired: Paired) -> Iterator[str]:
    """How the columns are to be read."""
    first = paired.headlines[0]
    tests = " or ".join(dict.fromkeys(gain.test for one in paired.headlines for gain in one.gains.values()))
    if found := [one.metric for one in paired.headlines if one.metric in OF_A_CORPUS]:
        yield f"{', '.join(found)}: mean over rows, since a corpus has one figure and no rows to pair"
    holm = ", corrected for their number by Holm" if len(first.gains) > 1 else ""
    yield f"differences are from {next(iter(first.figures))}, paired by row; p: {tests} test{holm}"
