"""The page: the template, and how it writes figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workflow.progress import duration, size
from workflow.report.browser import script
from workflow.report.samples import KINDS
from workflow.show import COUNTED, LIKELY, SYSTEMS, TEXT_HEADER, count_rows, likely_rows, text_rows

TEMPLATE = "report.html.jinja"


def render(template: str = TEMPLATE, **values: Any) -> str:
    """The page that a template makes of `values`. Whatever it writes is escaped, and a gap is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": percent, "size": size, "number": number, "duration": duration}
    text, allowed = script()
    return environment.get_template(template).render(
        script=text,
        allowed=allowed,
        SYSTEMS=SYSTEMS,
        KINDS=KINDS,
        TEXT_HEADER=TEXT_HEADER,
        text_rows=text_rows,
        COUNTED=COUNTED,
        count_rows=count_rows,
        LIKELY=LIKELY,
        likely_rows=likely_rows,
        **values,
    )


def percent(share: float | None) -> str:
    """A share of 0 to 1 in per cent, with one decimal."""
    return "–" if share is None else f"{100 * share:.1f}"


def number(value: Any) -> str:
    """A count with commas between thousands, a measure with four digits, anything else as text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return (
        f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    )
