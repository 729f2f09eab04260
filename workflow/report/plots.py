"""Charts: matplotlib draws them, and they come out as SVG that belongs to the page it stands in.

Letters stay text in the page's font, colours are the page's CSS variables (`--s1` ... `--s6`, `--rule`,
`--warn`; what stands behind the comma serves a file of its own), so a chart follows the page from light to
dark. Equal input gives equal bytes: neither date nor the user's matplotlibrc come in.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT, LETTERS = 480, 230, 12
"""Of a chart, in CSS pixels; a page that is narrower scales it down."""
BINS, POINTS, DOTTED, LABEL = 40, 300, 24, 44
"""Most bars and points; fewer points than `DOTTED` are drawn as dots too; most letters of a label."""

COLOURS = {
    "#000001": "currentColor",
    "#000002": "var(--rule, #8885)",
    "#000003": "var(--warn, #8a5a00)",
    "#000011": "var(--s1, #2763c4)",
    "#000012": "var(--s2, #c2570c)",
    "#000013": "var(--s3, #1b7a3d)",
    "#000014": "var(--s4, #8746b0)",
    "#000015": "var(--s5, #0f7c8a)",
    "#000016": "var(--s6, #6b6b6b)",
}
"""What matplotlib is told -> what the page reads."""
INK, RULE, WARN, *SERIES = COLOURS
DASHES: Sequence[Any] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
"""Told apart without colours."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dollar sign in a recipe's name is one
    "font.size": LETTERS * 0.72,  # points
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.xmargin": 0.02,
    "axes.linewidth": 0.8,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 3.5,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "legend.handlelength": 2.4,
}

Points = Sequence[tuple[float, float]]
Bands = Sequence[tuple[float, float, float]]


def lines(
    series: Mapping[str, Points],
    x: str,
    y: str,
    bands: Mapping[str, Bands] | None = None,
    *,
    title: str = "",
) -> str:
    """Curves over one pair of axes.

    Args:
        series: Name -> points `(x, y)`, rising in x; long ones are thinned to `POINTS` means, and what is
            not finite is left out. One series has no legend.
        x: Name of the horizontal axis, with its unit.
        y: Name of the vertical one.
        bands: Name of a series -> `(x, low, high)`, drawn in its colour behind it.
        title: What a screen reader says; default: `y over x`.

    Returns:
        An `<svg>` element, or "" where there is nothing to draw.
    """
    drawn = {name: thinned(finite) for name, points in series.items() if (finite := _finite(points))}
    if not drawn:
        return Markup("")
    with _chart(title or f"{y} over {x}", (series, bands, x, y)) as (axes, out):
        for number, (name, points) in enumerate(drawn.items()):
            xs, ys = zip(*points, strict=True)
            colour, dash = SERIES[number % len(SERIES)], DASHES[number % len(DASHES)]
            dot = "o" if len(points) < DOTTED else ""
            axes.plot(
                xs,
                ys,
                label=_plain(name),
                color=colour,
                linestyle=dash,
                linewidth=1.5,
                marker=dot,
                markersize=3.5,
            )
            if band := _finite((bands or {}).get(name, ())):
                at, low, high = zip(*band, strict=True)
                axes.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
        _frame(axes, x, y, grid="y")
        if len(drawn) > 1:
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, borderaxespad=0.2)
    return out[0]


def intervals(rows: Sequence[tuple[str, float, float, float]], x: str, *, title: str = "") -> str:
    """A dot with a whisker for each row, from the top down; a line at 0 where 0 is among the values.

    Args:
        rows: Label, value, low and high end of its interval, in the unit of `x`.
        x: Name of the axis, with its unit.
        title: What a screen reader says; default: x and the rows.

    Returns:
        An `<svg>` element, or "" where there is nothing to draw.
    """
    kept = [row for row in rows if all(map(math.isfinite, row[1:]))]
    if not kept:
        return Markup("")
    said = "; ".join(f"{name} {value:.4g}, {low:.4g} to {high:.4g}" for name, value, low, high in kept)
    with _chart(title or f"{x}: {said}", (rows, x), 58 + 24 * len(kept)) as (axes, out):
        for place, (_, value, low, high) in enumerate(kept):
            axes.plot([low, high], [place, place], color=SERIES[0], linewidth=2, alpha=0.55)
            axes.plot([value], [place], color=SERIES[0], marker="o", markersize=5)
        axes.set_yticks(range(len(kept)), [_plain(row[0]) for row in kept])
        axes.set_ylim(len(kept) - 0.5, -0.5)
        if min(row[2] for row in kept) < 0 < max(row[3] for row in kept):
            axes.axvline(0, color=INK, linewidth=0.8)
        _frame(axes, x, "", grid="x")
    return out[0]


def histogram(
    counts: Mapping[int, int], x: str, y: str = "rows", limit: float | None = None, *, title: str = ""
) -> str:
    """Bars of how often whole numbers occur, at most about `BINS` of them, from 0.

    Args:
        counts: Number -> how often.
        x: Name of the horizontal axis, with its unit.
        y: What is counted.
        limit: Where a dashed line stands.
        title: What a screen reader says; default: `y by x`.

    Returns:
        An `<svg>` element, or "" where there is nothing to draw.
    """
    if not counts:
        return Markup("")
    width = bin_width(counts)
    bins: Counter[int] = Counter()
    for value, times in counts.items():
        bins[value // width] += times
    with _chart(title or f"{y} by {x}", (sorted(counts.items()), x, y, limit), 190) as (axes, out):
        lefts = sorted(bins)
        heights = [bins[left] for left in lefts]
        axes.bar([left * width for left in lefts], heights, width * 0.92, color=SERIES[0], align="edge")
        if limit is not None:
            axes.axvline(limit, color=WARN, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.set_xlim(left=0)
        _frame(axes, x, y, grid="y")
        axes.yaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    return out[0]


def bin_width(counts: Mapping[int, int]) -> int:
    """How many whole numbers one bar of a histogram stands for: 1, 2 or 5 times a power of ten."""
    raw = (max(counts) + 1) / BINS
    power = 10 ** max(0, math.floor(math.log10(raw))) if raw > 1 else 1
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw or factor == 10)


def thinned(points: Points) -> list[tuple[float, float]]:
    """At most `POINTS` points, each the mean of equally many neighbours."""
    size = math.ceil(len(points) / POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def _finite(points: Sequence[Any]) -> list[Any]:
    return [point for point in points if all(map(math.isfinite, point))]


def _plain(text: str) -> str:
    """A label that XML can hold, shortened in its middle."""
    text = re.sub(r"[^\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]|[\x7f-\x9f]", "\ufffd", text)
    return text if len(text) <= LABEL else f"{text[: LABEL - 15]}…{text[-14:]}"


@contextmanager
def _chart(title: str, data: object, height: int = HEIGHT) -> Iterator[tuple[Axes, list[str]]]:
    """Axes to draw on; afterwards the list holds the SVG."""
    import matplotlib
    from matplotlib.figure import Figure

    out: list[str] = []
    salt = blake2b(repr((title, data)).encode("utf-8", "replace"), digest_size=8).hexdigest()
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)  # the browser has it
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**STYLE, "svg.hashsalt": salt})
        figure = Figure(figsize=(WIDTH / 100, height / 100), dpi=100, layout="constrained")
        yield figure.add_subplot(), out
        written = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    out.append(_of_the_page(written.getvalue(), title, height))


def _frame(axes: Axes, x: str, y: str, grid: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(_plain(x))
    axes.set_ylabel(_plain(y))
    axes.grid(axis=grid)  # type: ignore[arg-type]
    formatted = (axes.xaxis, axes.yaxis) if grid == "y" else (axes.xaxis,)
    for axis in formatted:
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(lambda value, _: tick(value))


def tick(value: float) -> str:
    """A number on an axis: `0.25`, `2e−5`, `20k`, `3.5M`."""
    size = abs(value)
    unit = next((unit for unit in UNITS if size >= unit), 1.0)
    if size < 1e-12:  # what rounding leaves of 0
        return "0"
    if size < 1e-3:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}".replace("-", "−")
    return f"{value / unit:.6g}{UNITS.get(unit, '')}".replace("-", "−")


UNITS = {1e9: "G", 1e6: "M", 1e3: "k"}
SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"


def _of_the_page(svg: str, title: str, height: int) -> Markup:
    """matplotlib's file as an element of a page: its colours, its font, no names of parts, a title."""
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        if element.tag == f"{{{SVG}}}g":
            element.attrib.pop("id", None)
        if "style" in element.attrib:
            element.set("style", _styled(element.get("style", "")))
        if element.get("transform", "").startswith("rotate(-0 "):
            del element.attrib["transform"]
        element.tail = None
        if "d" in element.attrib:
            element.set("d", re.sub(r"(\d+\.\d\d)\d+", r"\1", element.get("d", "")).replace("\n", ""))
    for number, sheet in enumerate(list(root)):
        if number == 0 and sheet.tag == f"{{{SVG}}}defs":
            root.remove(sheet)  # a style sheet for all elements of the page
    root.attrib = {"viewBox": root.get("viewBox", ""), "role": "img", "class": "chart"}
    root.set("style", f"max-width: {WIDTH}px; width: 100%; font-family: inherit; stroke-linejoin: round")
    label = ElementTree.Element(f"{{{SVG}}}title")
    label.text = re.sub(r"[^\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]", "\ufffd", title)
    root.insert(0, label)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def as_file(picture: str) -> str:
    """A picture as an SVG file: it has a size, a font and a ground of its own, since it stands in no page."""
    root = ElementTree.fromstring(picture)
    width, height = (float(part) for part in root.get("viewBox", "").split()[2:])
    root.set("width", str(2 * WIDTH))
    root.set("height", str(round(2 * WIDTH * height / width)))
    root.set("style", "font-family: sans-serif; background: #fff; color: #1d2430; stroke-linejoin: round")
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _styled(style: str) -> str:
    """Without the font's name, in the page's colours."""
    style = re.sub(r"font-family: [^;]*;? ?", "", style)
    return re.sub(r"#0000[01]\d", lambda found: COLOURS[found[0]], style)
