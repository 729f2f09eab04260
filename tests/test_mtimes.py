"""Times of files say nothing: after every edit, under every false date, what ought to be made is made.

Each case is an edit (or none) and something that happens to the times, the files or Snakemake's memory.
The truth is what a build from nothing comes to: a product is needed if its key is new; nothing else is made.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from accidents import build
from histories import EDITS, WANTED, Content, Truth, edit, new, products, wrongly_shown
from workspace import Folder
from zygote import Zygote

from workflow.sources import RACY_NS

NOTHING: Content = frozenset()
YEAR = 365 * 86400


@dataclass
class Place:
    """A built folder in which something happens; a build may come to have another store."""

    folder: Folder
    env: dict[str, str] = field(default_factory=dict)

    @property
    def recipes(self) -> list[Path]:
        return [path for path in self.folder.path("recipes").rglob("*") if path.is_file()]


Event = Callable[[Place, Content], None]


def dated(year: int) -> Event:
    """The edited files claim to be of a year."""

    def event(place: Place, content: Content) -> None:
        for path in edit(place.folder, content):
            os.utime(path, ((year - 1970) * YEAR,) * 2)

    event.__name__ = f"dated {year}"
    return event


def equally_dated(place: Place, content: Content) -> None:
    """Edited files have the very time they had before, to the nanosecond."""
    before = {path: path.stat().st_mtime_ns for path in place.recipes}
    for path in edit(place.folder, content):
        os.utime(path, ns=(before[path],) * 2)


def touched(place: Place, content: Content) -> None:
    """Every file there is, stamps included, is new."""
    edit(place.folder, content)
    subprocess.run(
        ["find", "recipes", "store", "results", "-exec", "touch", "{}", "+"],
        cwd=place.folder.root,
        check=True,
    )


def copied_with_times(place: Place, content: Content) -> None:
    """`cp -p` of a version that was written before the last build."""
    for path in edit(place.folder, content):
        old = path.with_name("old")
        shutil.copyfile(path, old)
        os.utime(old, (1.5e9, 1.5e9))
        subprocess.run(["cp", "-p", old, path], check=True)
        old.unlink()


def checked_out(place: Place, content: Content) -> None:
    """git writes another branch, and the first one again, and the other."""
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "init.defaultBranch=main"]
    root = place.folder.root

    def run(*arguments: str) -> None:
        subprocess.run([*git, *arguments], cwd=root, check=True, capture_output=True)

    run("init"), run("add", "recipes"), run("commit", "-m", "one"), run("checkout", "-b", "other")
    edit(place.folder, content)
    run("commit", "-a", "-m", "two", "--allow-empty"), run("checkout", "main"), run("checkout", "other")


def clock_set_back(place: Place, content: Content) -> None:
    """All that was built is of the future."""
    for top in ("store", "results", ".snakemake"):
        for path in place.folder.path(top).rglob("*"):
            os.utime(path, (3e9, 3e9), follow_symlinks=False)
    edit(place.folder, content)


def twice_in_a_tick(place: Place, content: Content) -> None:
    """An edit, and before the clock ticks another one of the same size; a dry run looked in between."""
    wanted = {path: path.stat().st_mtime_ns for path in edit(place.folder, content)}
    for path, old in wanted.items():
        body = path.read_bytes()
        path.write_bytes(body[:-1] + b" ")
        os.utime(path, ns=(old, old))
    place.folder.planned(*WANTED)
    for path, old in wanted.items():
        path.write_bytes(path.read_bytes()[:-1] + b"\n")
        os.utime(path, ns=(old, old))


def memory_lost(place: Place, content: Content) -> None:
    edit(place.folder, content)
    shutil.rmtree(place.folder.path(".snakemake"))


def stamps_lost(place: Place, content: Content) -> None:
    edit(place.folder, content)
    for path in place.folder.path("store").rglob("*.stamp"):
        path.unlink()


def folder_copied(place: Place, content: Content) -> None:
    """Everything is copied elsewhere, without its times."""
    other = place.folder.root.with_name("elsewhere")
    shutil.copytree(place.folder.root, other, symlinks=True, copy_function=shutil.copyfile)
    place.folder = Folder(other)
    edit(place.folder, content)


def store_moved(place: Place, content: Content) -> None:
    """The store goes to another place, which TUNEMAKE_STORE names."""
    other = place.folder.root.with_name("store-elsewhere")
    shutil.move(place.folder.path("store"), other)
    place.env["TUNEMAKE_STORE"] = str(other)
    edit(place.folder, content)


def old_and_forgotten(place: Place, content: Content) -> None:
    """Old dates, lost memory and a clock set back at once."""
    clock_set_back(place, NOTHING)
    dated(2020)(place, content)
    memory_lost(place, content)


def there_and_back(place: Place, content: Content) -> None:
    """An edit that is taken back."""
    edit(place.folder, content)
    place.folder.planned(*WANTED)
    for path in edit(place.folder, NOTHING):
        os.utime(path, (4e9, 4e9))


EVENTS: list[Event] = [
    *(dated(2020), dated(2040), equally_dated, touched, copied_with_times, checked_out, clock_set_back),
    *(
        twice_in_a_tick,
        memory_lost,
        stamps_lost,
        folder_copied,
        store_moved,
        old_and_forgotten,
        there_and_back,
    ),
]
CONTENTS = [NOTHING, *(frozenset({name}) for name in EDITS)]


def outcome(
    zygote: Zygote, truth: Truth, built: Folder, root: Path, event: Event, content: Content
) -> list[str]:
    """What was stale or needless in one case."""
    shutil.copytree(built.root, root, symlinks=True)
    place = Place(Folder(root))
    if event in (equally_dated, twice_in_a_tick):  # digests of sources are remembered once these are at rest
        time.sleep(RACY_NS / 1e9 + 0.2)
        place.folder.planned(*WANTED)
    event(place, content)
    now = NOTHING if event is there_and_back else content
    made = build(zygote, place.folder, *WANTED, env=place.env)
    if "TUNEMAKE_STORE" in place.env:
        shutil.move(place.env["TUNEMAKE_STORE"], place.folder.path("store"))
    needed = truth.of(now).keys() - truth.of(NOTHING).keys()
    wrong = [f"made for nothing: {line}" for line in sorted(set(made) - needed)]
    wrong += [f"not made: {line}" for line in sorted(needed - set(made))]
    wrong += [f"made twice: {line}" for line in sorted({line for line in made if made.count(line) > 1})]
    wrong += (
        [] if products(place.folder) == truth.of(now) else ["the products are not those of a fresh build"]
    )
    if "TUNEMAKE_STORE" not in place.env:
        wrong += wrongly_shown(place.folder)
        wrong += [f"again: {place.folder.planned(*WANTED)}"] * bool(place.folder.planned(*WANTED))
    return [f"{event.__name__}, {'+'.join(content) or 'no edit'}: {line}" for line in wrong]


@pytest.fixture(scope="module")
def truth(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Truth:
    found = Truth(zygote, tmp_path_factory.mktemp("truth"))
    for content in CONTENTS:
        found.of(content)
    return found


@pytest.fixture(scope="module")
def built(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    place = new(tmp_path_factory.mktemp("built") / "it")
    build(zygote, place, *WANTED)
    return place


@pytest.mark.slow
@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
def test_no_time_makes_anything_stale_or_needless(
    event: Event, built: Folder, zygote: Zygote, truth: Truth, tmp_path: Path
) -> None:
    def case(number: int) -> list[str]:
        (tmp_path / str(number)).mkdir()
        return outcome(zygote, truth, built, tmp_path / str(number) / "it", event, CONTENTS[number])

    with ThreadPoolExecutor(2) as pool:
        wrong = [line for lines in pool.map(case, range(len(CONTENTS))) for line in lines]
    assert not wrong, "\n".join(wrong)
