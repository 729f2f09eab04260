"""rows made again after edits: byte by byte what a build from nothing makes, and of little parsed."""

from __future__ import annotations

import os
import random
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from edited_rows import Place, Watched, edited, line, lines_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workflow import mending, sorting
from workflow.formats import reading
from workflow.products import rows

BOM = b"\xef\xbb\xbf"


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "say", lambda _: None)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorting, "SHARD_ROWS", 4)
    monkeypatch.setattr(reading, "BLOCK", 100)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


NAMES = st.integers(0, 40)
LINES = st.one_of(
    st.builds(line, NAMES),
    st.builds(line, NAMES, NAMES),
    st.builds(lambda name: line(name, "drop"), NAMES),
    st.sampled_from(
        [b"", b" \t", b"{", b'{"l":[{}]}', line(), line("drop"), line("1") + b"\r", BOM + line(1)]
    ),
)
EDITS = st.tuples(
    st.sampled_from("insert delete replace twice move swap".split()), st.floats(0, 0.999), LINES
)


@pytest.mark.usefixtures("small")
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(LINES, min_size=1, max_size=40),
    st.lists(st.tuples(st.lists(EDITS, max_size=4), st.booleans(), st.sampled_from([b"", BOM])), max_size=4),
    st.sampled_from([{}, {"id": "n"}, {"split": {"part": "train", "test": 0.4, "seed": 0}}]),
)
def test_any_edits_give_what_a_build_from_nothing_gives(
    base: list[bytes], versions: list[Any], chosen: dict[str, Any]
) -> None:
    with TemporaryDirectory() as root:
        place, lines = Place(Path(root), bad_rows=len(base), **chosen), base
        if "id" in chosen:
            lines = [one.replace(b"{", b'{"n":"%d",' % number, 1) for number, one in enumerate(base)]
        for edits, ended, mark in [([], True, b""), *versions]:
            for edit in edits:
                lines = edited(lines, *edit)
            body = mark + b"\n".join(lines) + b"\n" * ended
            assert place.make(body) == place.fresh(body)


@pytest.mark.usefixtures("small")
def test_an_edit_parses_the_shards_that_it_touches(tmp_path: Path, watched: Watched) -> None:
    place, lines, draw = Place(tmp_path), lines_of(range(400)), random.Random(0)
    place.make(b"\n".join(lines))
    for turn in range(12):
        kind = ("replace", "insert", "delete")[turn % 3]
        lines = edited(lines, kind, draw.random(), line(f"new {turn}"))
        before, anew = watched.lines, watched.anew
        made = place.make(b"\n".join(lines))
        assert watched.anew == anew
        assert 0 < watched.lines - before < 100
        assert made == place.fresh(b"\n".join(lines))
    before, anew = watched.lines, watched.anew
    draw.shuffle(lines)
    made = place.make(b"\n".join(lines))
    assert (watched.lines, watched.anew) == (before, anew)
    assert made == place.fresh(b"\n".join(lines))


@pytest.mark.usefixtures("small")
def test_files_of_one_section_do_not_take_each_others_place(tmp_path: Path, watched: Watched) -> None:
    place, files = Place(tmp_path), {"a.jsonl": lines_of(range(80)), "b.jsonl": lines_of(range(80, 160))}
    for name, body in files.items():
        place.make(b"\n".join(body), name=name)
    for name in ("a.jsonl", "b.jsonl", "a.jsonl"):
        before = watched.lines
        files[name] = edited(files[name], "replace", 0.5, line(f"new {before}"))
        place.make(b"\n".join(files[name]), name=name)
        assert 0 < watched.lines - before < 60


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("split", [{"test_rows": 20, "test": None}, {"test": 0.2}])
def test_both_parts_of_a_split(tmp_path: Path, watched: Watched, split: dict[str, Any]) -> None:
    for part in ("train", "test"):
        place = Place(tmp_path / part, split={**split, "seed": 1, "part": part})
        lines = lines_of(range(100))
        place.make(b"\n".join(lines))
        lines[3] = line("other")
        anew = watched.anew
        made = place.make(b"\n".join(lines))
        assert made == place.fresh(b"\n".join(lines))
        assert watched.anew == anew + 1 or "test_rows" in split  # of all rows others may be the first 20


@pytest.mark.usefixtures("small")
def test_errors_are_those_of_a_build_from_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path, id="n")
    lines = [line(number, n=str(number)) for number in range(50)]
    place.make(b"\n".join(lines))
    wrong = {
        "id '7#0' was already used in line 8": [*lines, line("x", n="7")],
        "data.jsonl:54: not JSON": [*lines, *[b"{"] * 4],
        "no rows": [b""],
    }
    for message, body in wrong.items():
        refused = place.make(b"\n".join(body))
        assert message in refused
        assert refused == place.fresh(b"\n".join(body))


@pytest.mark.usefixtures("small")
def test_more_new_lines_than_one_process_should_read(
    tmp_path: Path, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mending, "MOST", 60)
    place = Place(tmp_path)
    place.make(b"\n".join(lines_of(range(200))))
    for last, anew in ((201, 0), (262, 1)):
        before = watched.anew
        place.make(b"\n".join(lines_of(range(last))))
        assert watched.anew == before + anew


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", ["rows", "origins"])
def test_what_is_damaged_is_not_used(tmp_path: Path, watched: Watched, name: str) -> None:
    place, lines, draw = Place(tmp_path), lines_of(range(60)), random.Random(0)
    place.make(b"\n".join(lines))
    for turn in range(20):
        lines[draw.randrange(60)] = line(f"new {turn}")
        [*_, origins] = place.origins()
        struck = origins if name == "origins" else tmp_path / "rows" / origins.name[:4] / "rows.jsonl"
        body = bytearray(struck.read_bytes())
        body[draw.randrange(len(body))] ^= 1 << draw.randrange(8)
        struck.write_bytes(body[: draw.randrange(len(body))] if turn % 4 == 0 else body)
        for other in place.origins():
            if other != origins:
                other.unlink()
        anew, made = watched.anew, place.make(b"\n".join(lines))
        assert watched.anew == anew + 1 or name == "rows"  # what is edited anyway is not looked at
        assert made == place.fresh(b"\n".join(lines))
    assert watched.anew > 30


@pytest.mark.usefixtures("small")
def test_what_is_gone_or_of_another_shape_is_not_used(tmp_path: Path, watched: Watched) -> None:
    place, lines = Place(tmp_path), lines_of(range(60))
    place.make(b"\n".join(lines))
    listed = b"[" + b",\n".join(lines) + b"]"
    assert place.make(listed) == place.fresh(listed)
    shutil.rmtree(tmp_path / "rows")
    place.make(b"\n".join(lines))
    assert watched.anew == 4


@pytest.mark.usefixtures("small")
def test_builds_at_once_while_former_ones_are_deleted(tmp_path: Path) -> None:
    place, draw = Place(tmp_path), random.Random(0)
    place.make(b"\n".join(lines_of(range(80))))
    bodies = [b"\n".join(edited(lines_of(range(80)), "insert", draw.random(), line(n))) for n in range(16)]
    expected = [place.fresh(body) for body in bodies]

    def build(number: int) -> Any:
        if number % 4 == 3:
            for path in (tmp_path / "rows").glob("????"):
                shutil.rmtree(path, ignore_errors=True)
        return place.make(bodies[number], name=f"{number}.jsonl")

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(build, range(16))) == expected


@pytest.mark.usefixtures("small")
@pytest.mark.slow
def test_a_kill_at_any_change_on_disk(tmp_path: Path, watched: Watched) -> None:
    place, lines = Place(tmp_path), lines_of(range(60))
    place.make(b"\n".join(lines))
    body = b"\n".join([*lines, line("new")])
    expected, anew, kills = place.fresh(body), watched.anew, 0
    while True:
        if not (child := os.fork()):
            die_at(kills)
            place.make(body, key="it")
            os._exit(0)
        os.waitpid(child, 0)
        if (tmp_path / "rows/it").exists():
            break
        kills += 1
        assert place.make(body, key="it") == expected
        shutil.rmtree(tmp_path / "rows/it")
        place.origins(name="it.*")[0].unlink()
    assert kills > 20
    assert watched.anew == anew


def die_at(number: int) -> None:
    """Let this process end at a moment when it opens, names or deletes a file."""
    left = [number]

    def count(event: str, _: Any) -> None:
        if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod"):
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)

    sys.addaudithook(count)
