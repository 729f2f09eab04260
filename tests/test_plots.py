"""Charts as SVG for a page, and figures as people read them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from workflow.report.page import number, size
from workflow.report.plots import POINTS, bin_width, histogram, intervals, lines, thinned, tick
from workflow.report.recipe import title
from workflow.report.samples import shortened

HOSTILE = "</svg><script>x</script>$a_b$ 中\x00\ud800\u202e\"'&"
CURVE = [(step, 2 / (1 + step)) for step in range(40)]


def texts(svg: str) -> list[str]:
    """What a person reads in the picture."""
    return [
        element.text or "" for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")
    ]


def everything() -> str:
    band = [(1.0, 50.0, 70.0), (2.0, 55.0, 75.0)]
    return (
        lines({HOSTILE: CURVE, "b": CURVE}, "steps", HOSTILE, {"b": band})
        + intervals([(HOSTILE, 0.4, -1.0, 2.0), ("x", float("nan"), 0, 1)], "points")
        + histogram({5: 2, 99: 40}, "tokens", limit=120)
    )


def test_a_chart_is_the_pages_own() -> None:
    svg = everything()
    assert svg.count("<svg") == svg.count("<title>") == 3
    assert not re.search(
        r"<(script|style|metadata|image)\b|#0000|font-family: (?!inherit)|<\?xml|<!DOCTYPE", svg
    )
    assert set(re.findall(r"(?:fill|stroke): ([^;\"]+)", svg)) <= {
        "none", "currentColor", "var(--rule, #8885)", "var(--s1, #2763c4)", "var(--s2, #c2570c)",
        "var(--warn, #8a5a00)",
    }  # fmt: skip
    names = re.findall(r' id="([^"]+)"', svg)
    assert len(names) == len(set(names))
    assert set(re.findall(r'xlink:href="#([^"]+)"|url\(#([^)]+)\)', svg)) <= {
        pair for name in names for pair in ((name, ""), ("", name))
    }


def test_letters_stay_what_they_are() -> None:
    found = texts(lines({HOSTILE: CURVE, "b": CURVE}, "steps", "loss $"))
    assert "</svg><script>x</script>$a_b$ 中\ufffd\ufffd\u202e\"'&" in found
    assert {"steps", "loss $", "b"} <= set(found)


def test_the_same_bytes_whatever_the_user_prefers(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 9\nsvg.fonttype: path\naxes.grid: True\n")
    program = "import test_plots, sys; sys.stdout.buffer.write(test_plots.everything().encode())"
    other = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent,
        env={
            "PYTHONPATH": f"{Path(__file__).parents[1]}",
            "MPLCONFIGDIR": str(tmp_path),
            "PYTHONHASHSEED": "7",
        },
        capture_output=True,
        check=True,
    )
    assert other.stdout.decode() == everything()


def test_nothing_gives_nothing() -> None:
    assert (
        lines({"a": [], "b": [(1, float("inf"))]}, "x", "y") == intervals([], "x") == histogram({}, "x") == ""
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (-0.0, "0"), (0.25, "0.25"), (1e-4, "1e−4"), (2.5e-5, "2.5e−5"), (-3, "−3"), (1500, "1.5k"),
     (20_000, "20k"), (3.5e6, "3.5M"), (2e9, "2G"), (999, "999"), (1e-17, "0")],
)  # fmt: skip
def test_ticks(value: float, text: str) -> None:
    assert tick(value) == text


def test_bars_and_points_are_few() -> None:
    assert [bin_width({longest: 1}) for longest in (3, 39, 40, 100, 512, 8191)] == [1, 1, 2, 5, 20, 500]
    assert len(thinned([(i, 1.0) for i in range(10_000)])) <= POINTS
    assert thinned([(1, 1), (2, 4)]) == [(1, 1), (2, 4)]


def test_figures_for_people() -> None:
    assert [number(v) for v in (1234567, 0.123456, 4211.7, "<x>")] == ["1,234,567", "0.1235", "4,212", "<x>"]
    sizes = " ".join(size(v) for v in (12, 1500, 2_210_000_000, 3e15, None))
    assert sizes == "12 B 1.5 kB 2.2 GB 3000.0 TB –"
    assert shortened("ab" * 500, 90).endswith("ab" * 15)
    assert title({"model": {"base": {"stand_in": {"family": "llama"}}}}) == (
        "tiny stand-in for llama, not tuned"
    )
    assert title({"model": {"base": {"recipe": "tiny"}}, "tuning": {"method": "full"}}) == (
        "model of recipe tiny, full tuning"
    )
