"""Random histories of a folder: edits, reverts, losses, kills, builds; after each build the truth is shown.

The model is only what the recipe says now and which folders the store has; the truth about a content is what
building everything from nothing comes to.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
from accidents import build, start
from histories import EDITS, WANTED, Content, Truth, edit, new, products, wrongly_shown
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from test_kills import descendants
from wholeness import torn
from workspace import Folder
from zygote import Zygote

EXAMPLES, STEPS = 14, 30
LOSSES = {
    "stamps": ("store", "*/*.stamp"),
    "receipts": ("store", "*/" + "[0-9a-f]" * 32 + ".json"),
    "places": ("store", "*/*.where.json"),
    "folders": ("store", "*/" + "[0-9a-f]" * 32),
    "work": ("store", "work"),
    "pieces": ("store", "pieces"),
    "digests": ("store", "digests.sqlite"),
    "memory": (".", ".snakemake"),
    "results": ("results", "*/*.json*"),
    "notes": ("results", "*/.addresses"),
}
"""What may be deleted -> where, and a pattern of names."""


def folders(place: Folder) -> set[str]:
    """`<product> <key>` of every finished folder in the store."""
    return {" ".join(path.parts[-3:-1]) for path in place.path("store").glob("*/*/manifest.json")}


class Histories(RuleBasedStateMachine):
    """One folder and what happens to it."""

    zygote: ClassVar[Zygote]
    truth: ClassVar[Truth]
    built: ClassVar[Folder]
    steps: ClassVar[int] = 0

    @initialize()
    def begin(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="history-"))
        shutil.copytree(self.built.root, self.home / "it", symlinks=True)
        self.place = Folder(self.home / "it")
        self.content: Content = frozenset()
        self.lost = self.emptied = False

    @rule(name=st.sampled_from(sorted(EDITS)), year=st.sampled_from([None, 2020, 2040]))
    def edit_or_revert(self, name: str, year: int | None) -> None:
        self.count()
        self.content ^= {name}
        for path in edit(self.place, self.content):
            if year:
                os.utime(path, ((year - 1970) * 31536000,) * 2)

    @rule(what=st.sampled_from(sorted(LOSSES)), which=st.integers(0, 1000))
    def lose(self, what: str, which: int) -> None:
        self.count()
        top, pattern = LOSSES[what]
        found = sorted(self.place.path(top).glob(pattern))
        if found:
            path = found[which % len(found)]
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            self.lost |= what in ("folders", "receipts")
            self.emptied |= what == "folders"  # the receipt stays, and counts for nothing

    @rule(after=st.floats(0.1, 1.2))
    def kill_a_build(self, after: float) -> None:
        self.count()
        run = start(self.zygote, self.place, *WANTED)
        time.sleep(after)
        for process in [run.pid, *descendants(run.pid)]:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        run.wait()

    @rule()
    def build(self) -> None:
        self.count()
        before = folders(self.place)
        made = build(self.zygote, self.place, *WANTED)
        wanted = self.truth.of(self.content)
        there = products(self.place)
        assert there.items() <= wanted.items()
        assert wrongly_shown(self.place) == []
        assert len(made) == len(set(made)), "made twice"
        assert set(made) == set(there) - before, "made for nothing, or not made"
        self.lost = False

    def count(self) -> None:
        type(self).steps += 1
        assert not [line for line in torn(self.place.root) if not self.lost and not self.emptied]

    def teardown(self) -> None:
        shutil.rmtree(self.home)


def histories(zygote: Zygote, root: Path, examples: int, **more: Any) -> int:
    """Play that many histories: the number of steps."""
    Histories.zygote, Histories.truth, Histories.steps = zygote, Truth(zygote, root / "truth"), 0
    (root / "truth").mkdir()
    Histories.built = new(root / "built")
    build(zygote, Histories.built, *WANTED)
    slow = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    phases = [Phase.explicit, Phase.generate]  # shrinking would play hundreds more
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=examples, stateful_step_count=STEPS, deadline=None, database=None, phases=phases,
            suppress_health_check=slow, **more,
        ),
    )  # fmt: skip
    return Histories.steps


@pytest.mark.slow
def test_random_histories(zygote: Zygote, tmp_path: Path) -> None:
    assert histories(zygote, tmp_path, EXAMPLES, derandomize=True) >= 300


@pytest.mark.soak
def test_random_histories_for_long(zygote: Zygote, tmp_path: Path) -> None:
    """An hour of random histories, or TUNEMAKE_SOAK_SECONDS."""
    from wholeness import soaking

    for number in soaking():
        (tmp_path / str(number)).mkdir()
        histories(zygote, tmp_path / str(number), EXAMPLES)
        shutil.rmtree(tmp_path / str(number))
