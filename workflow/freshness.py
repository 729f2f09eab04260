"""Whether a published file shows what it should, told to Snakemake in the only words it knows: times.

Clocks are set back, files are touched, copied and unpacked with times of their own: times say nothing. What
`results/<recipe>/built.json` says a file shows is compared with what it should show; then the times of its
inputs, which have no other meaning, are set so that Snakemake comes to the same conclusion.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from workflow.errors import BuildError
from workflow.store.files import read_json
from workflow.store.records import Receipt

SECOND = 10**9
"""One second in ns."""


def shows(target: Path, receipt: Receipt) -> bool:
    """Whether `target` (results/<recipe>/<name>) was published from this receipt's folder."""
    with suppress(BuildError, AttributeError):  # no built.json, or a damaged one: publish again
        built = read_json(target.parent / "built.json").get(target.name, {})
        entry = [built.get(name) for name in ("product", "address", "key")]
        return os.path.lexists(target) and entry == [receipt.product, receipt.address, receipt.key]
    return False


def weigh(target: Path, stamp: Path, note: Path, fresh: bool) -> None:
    """Make stamp and note no newer than a fresh target, and a stale one older than the note.

    None of them is of the future then, unless a fresh target is: Snakemake refuses outputs that are older
    than their inputs.
    """
    if not os.path.lexists(target):
        return
    now = time.time_ns()
    if fresh:
        published = target.lstat().st_mtime_ns
        not_after(stamp, published)
        not_after(note, published)
    else:
        os.utime(note, ns=(now, now))
        not_after(target, now - SECOND)


def not_after(path: Path, limit: int) -> None:
    """Lower the mtime of a file or link to `limit` (ns) if it is later."""
    if path.lstat().st_mtime_ns > limit:
        os.utime(path, ns=(limit, limit), follow_symlinks=False)
