"""Geometry of the report's charts, and figures as people read them."""

from __future__ import annotations

from collections import Counter

from workflow.report.charts import POINTS, Axis, Line, histograms
from workflow.report.page import number, size
from workflow.report.recipe import title
from workflow.report.samples import shortened


def test_axes() -> None:
    assert Axis.over(0, 0.87, 4).ticks == [(0, "0"), (50, "0.5"), (100, "1.0")]
    assert [label for _, label in Axis.over(0, 1e-4, 2).ticks] == ["0", "5e-5", "1e-4"]
    assert [label for _, label in Axis.over(0, 2300, 5, whole=True).ticks][:3] == ["0", "500", "1,000"]
    assert Axis.over(0, 0, 4).place(0) == 0


def test_charts() -> None:
    (chart,) = histograms({"a": Counter({1: 2, 3: 4}), "b": Counter()})
    assert (chart.rows, chart.median, chart.longest) == (6, 3, 3)
    assert max(height for *_, height in chart.bars) == chart.y.place(4)
    assert Line.through([(5, 1.0)]).points == "100,0"
    assert len(Line.through([(i, 1.0) for i in range(10_000)]).points.split()) <= POINTS


def test_figures_for_people() -> None:
    assert [number(v) for v in (1234567, 0.123456, 4211.7, "<x>")] == ["1,234,567", "0.1235", "4,212", "<x>"]
    sizes = " ".join(size(v) for v in (12, 1500, 2_210_000_000, 3e15, None))
    assert sizes == "12 B 1.5 kB 2.2 GB 3000.0 TB –"
    assert shortened("ab" * 500, 90).endswith("ab" * 15)
    assert title({"model": {"base": {"recipe": "tiny"}}, "tuning": {"method": "full"}}) == (
        "model of recipe tiny, full tuning"
    )
