"""`snakemake --report`: the report and its figures with captions in one page, made without a network."""

from __future__ import annotations

import re
from pathlib import Path

from workspace import folder, pretend, publish_all


def test_it_holds_the_report_and_every_figure(tmp_path: Path) -> None:
    place = folder(tmp_path)
    pretend(place, "small")
    publish_all(place, "small")
    targets = [f"results/small/{name}" for name in ("report.html", "figures")]
    place.build(*targets, "--report", "all.html")
    page = (tmp_path / "all.html").read_text()
    assert {f'"{target}' for target in targets} <= set(re.findall(r'"results/small/[a-z]+(?:\.html)?', page))
    assert "results/small/figures/loss.svg" in page
    assert "Loss of <strong>small</strong> over optimizer steps" in page
    assert "What <strong>small</strong> is worth" in page
    assert not re.search(r'<(?:script|link|img)[^>]*(?:src|href)="https?:', page)
