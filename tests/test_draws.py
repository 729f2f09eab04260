"""Draws on disk: found again, shared between writers, and never used when torn or damaged."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path

import pytest

from workflow import draws
from workflow.draws import Draws, Wanted, prompt_digest
from workflow.engine import Draw, Question, seed_of
from workflow.errors import BuildError

PROMPTS = {row: prompt_digest([1, number]) for number, row in enumerate("abcd")}
SEED = 7
WANTED = Wanted(PROMPTS, 3, SEED)


def add(to: Draws, row: str, text: str = "x", numbers: range = range(3)) -> None:
    """Add draws of a row; their texts tell them apart."""
    for number in numbers:
        question = Question(row, number, [], seed_of(to.wanted.seed, row, number))
        to.add(question, Draw(f"{text}{number}", [5, 6, 2], "stop"))


def written(folder: Path, *rows: str, writer: str = "w", text: str = "x", wanted: Wanted = WANTED) -> Path:
    """The file of a writer that has these rows."""
    with Draws(folder, writer, wanted) as kept:
        for row in rows:
            add(kept, row, text)
    return kept.path


def there(folder: Path, writer: str = "w", wanted: Wanted = WANTED) -> dict[str, list[str]]:
    """Row -> texts of the rows that have all their draws."""
    with Draws(folder, writer, wanted) as kept:
        whole = [row for row in wanted.prompts if not kept.missing(row)]
        return {row: [draw.text for draw in kept.read(row)] for row in whole}


def test_draws_come_back(tmp_path: Path) -> None:
    written(tmp_path, "b", "a", text="行\u2028\n")
    with Draws(tmp_path, "w", WANTED) as kept:
        assert (kept.count, kept.missing("a"), kept.missing("c")) == (6, [], [0, 1, 2])
        assert kept.read("b") == [Draw(f"行\u2028\n{i}", [5, 6, 2], "stop") for i in range(3)]


def test_a_log_probability_is_kept_where_there_is_one(tmp_path: Path) -> None:
    draws_made = [Draw("x", [5], "stop", -0.25), Draw("y", [6], "length")]
    with Draws(tmp_path, "w", Wanted({"a": PROMPTS["a"]}, 2, SEED)) as kept:
        for number, draw in enumerate(draws_made):
            kept.add(Question("a", number, [], seed_of(SEED, "a", number)), draw)
        assert kept.read("a") == draws_made
    assert [b"logprob" in line for line in kept.path.read_bytes().splitlines()] == [True, False]


def test_another_writer_finds_them_and_writes_to_its_own_file(tmp_path: Path) -> None:
    first = written(tmp_path, "a", "b")
    before = first.read_bytes()
    second = written(tmp_path, "c", writer="v", text="y")
    assert (first.read_bytes(), len(second.read_bytes().splitlines())) == (before, 3)
    assert there(tmp_path, "u") == {
        row: [f"{text}{i}" for i in range(3)] for row, text in zip("abc", "xxy", strict=True)
    }


def test_more_draws_lack_only_the_new_ones(tmp_path: Path) -> None:
    written(tmp_path, "a")
    with Draws(tmp_path, "w", Wanted(PROMPTS, 5, SEED)) as kept:
        assert kept.missing("a") == [3, 4]
    assert list(there(tmp_path, wanted=Wanted(PROMPTS, 1, SEED))) == ["a"]


def test_other_prompts_rows_and_seeds_do_not_count(tmp_path: Path) -> None:
    written(tmp_path, "a", "b", "z", wanted=Wanted({**PROMPTS, "z": "0"}, 3, SEED))
    changed = Wanted({**PROMPTS, "b": prompt_digest([9])}, 3, SEED)
    assert list(there(tmp_path, wanted=changed)) == ["a"]
    assert there(tmp_path, wanted=Wanted(PROMPTS, 3, SEED + 1)) == {}


def test_the_first_of_two_records_counts(tmp_path: Path) -> None:
    with Draws(tmp_path, "w", WANTED) as kept:
        add(kept, "a", "first")
    path = written(tmp_path, "a", writer="v", text="second")
    assert path.stat().st_size > kept.path.stat().st_size
    assert there(tmp_path)["a"][0] == "first0"


@pytest.mark.parametrize("cut", [1, 2, 40])  # only the newline: it is whole again with the next line
def test_a_torn_last_line_is_passed_over_and_said(
    tmp_path: Path, cut: int, capfd: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, "a", "b")
    torn = path.read_bytes()[:-cut]
    path.write_bytes(torn)
    with Draws(tmp_path, "w", WANTED) as kept:
        assert kept.missing("b") == [2]
        add(kept, "b", "z", range(2, 3))
    assert "torn or damaged, and left out: 1" in capfd.readouterr().err
    assert path.read_bytes().startswith(torn + b"\n{")
    assert there(tmp_path)["b"] == ["x0", "x1", "z2" if cut > 1 else "x2"]


@pytest.mark.parametrize("garbage", [b"\0" * 50, b"\0" * 50 + b"\n", b'{"id": "b"}\n', b"[]\n", b"\xff\n\n"])
def test_garbage_after_a_power_cut_is_passed_over(tmp_path: Path, garbage: bytes) -> None:
    path = written(tmp_path, "a")
    path.write_bytes(path.read_bytes() + garbage)
    written(tmp_path, "b")
    assert list(there(tmp_path)) == ["a", "b"]


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    """Whichever bit of a file it is: its draw is missing, and the others are as they were."""
    path, chance = written(tmp_path, "a", "b"), random.Random(0)
    whole, good = path.read_bytes(), there(tmp_path)
    for bit in [*chance.sample(range(8 * len(whole)), 100), 8 * len(whole) - 8]:
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        found = there(tmp_path)
        assert found != good and all(good[row] == texts for row, texts in found.items())
        path.write_bytes(whole)


def test_a_bit_flipped_while_it_is_used(tmp_path: Path) -> None:
    path = written(tmp_path, "a")
    with Draws(tmp_path, "w", WANTED) as kept, path.open("r+b") as file:
        file.seek(100)
        file.write(b"\0")
        file.flush()
        with pytest.raises(BuildError, match="changed while it was used; build again"):
            kept.read("a")


def test_a_context_deleted_while_it_is_used_does_no_harm(tmp_path: Path) -> None:
    folder = tmp_path / "context"
    written(folder, "a", writer="v")
    with Draws(folder, "w", WANTED) as kept:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        add(kept, "b", "y")
        assert [kept.read(row)[1].text for row in "ab"] == ["x1", "y1"]
    assert there(folder) == {}


def test_a_file_that_is_swept_while_it_is_looked_for(tmp_path: Path) -> None:
    written(tmp_path, "a", writer="v")
    (tmp_path / "swept.jsonl").symlink_to(tmp_path / "nowhere")
    assert list(there(tmp_path)) == ["a"]


def test_of_very_many_files_few_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, row in enumerate("abcd"):
        written(tmp_path, row, writer=f"v{number}", text="x" * (9 - number))
    monkeypatch.setattr(draws, "MOST_OPEN", 3)
    open_before = len(os.listdir("/proc/self/fd"))
    with Draws(tmp_path, "w", WANTED) as kept:
        assert len(os.listdir("/proc/self/fd")) == open_before + 3
        assert [kept.read(row)[0].text for row in "abcd"] == ["x" * n + "0" for n in (9, 8, 7, 6)]
    ids = [json.loads(line)["id"] for line in kept.path.read_bytes().splitlines()]
    assert ids == [*"ccc", *"ddd"]
    assert len(os.listdir("/proc/self/fd")) == open_before


def test_use_is_noted_for_the_sweep(tmp_path: Path) -> None:
    os.utime(tmp_path, (0, 0))
    written(tmp_path)
    assert tmp_path.stat().st_mtime > time.time() - 60


def test_flushes_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    with Draws(tmp_path, "w", WANTED) as kept:
        monkeypatch.setattr(os, "fsync", synced.append)
        add(kept, "a")
        kept.sync_if_due()
        assert not synced
        later = time.monotonic() + 1.5
        monkeypatch.setattr(time, "monotonic", lambda: later)
        kept.sync_if_due()
        kept.sync_if_due()
        assert len(synced) == 1
        monkeypatch.undo()


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Draws(tmp_path, "w", WANTED) as kept:
        monkeypatch.setattr(os, "write", lambda _file, data: len(data) - 1)
        with pytest.raises(BuildError, match="disk is full"):
            add(kept, "a")
