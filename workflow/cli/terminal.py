"""What the terminal is like."""

from __future__ import annotations

import shutil
import sys


def width() -> int | None:
    """Columns of the terminal; None where the output goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
