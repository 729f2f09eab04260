"""Checkpoints: only what is whole counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from workflow.training.checkpoints import MANIFEST, is_whole, newest_whole, rotate, seal_checkpoint


def checkpoint(folder: Path, step: int, sealed: bool = True) -> Path:
    path = folder / f"checkpoint-{step}"
    (path / "rank").mkdir(parents=True)
    (path / "rank" / "optimizer.pt").write_bytes(b"momentum" * step)
    (path / "trainer_state.json").write_text("{}")
    if sealed:
        seal_checkpoint(path)
    return path


def test_a_half_written_checkpoint_is_left_out_and_deleted(tmp_path: Path) -> None:
    whole, half = checkpoint(tmp_path, 9), checkpoint(tmp_path, 10, sealed=False)
    assert newest_whole(tmp_path) == whole
    assert not half.exists()


@pytest.mark.parametrize("file", ["rank/optimizer.pt", "trainer_state.json", MANIFEST])
def test_a_flipped_byte_breaks_a_checkpoint(tmp_path: Path, file: str) -> None:
    older, newer = checkpoint(tmp_path, 2), checkpoint(tmp_path, 10)
    data = bytearray((newer / file).read_bytes())
    data[0] ^= 1
    (newer / file).write_bytes(data)
    assert newest_whole(tmp_path) == older


def test_a_missing_or_added_file_breaks_a_checkpoint(tmp_path: Path) -> None:
    one, two = checkpoint(tmp_path, 1), checkpoint(tmp_path, 2)
    (one / "rank" / "optimizer.pt").unlink()
    (two / "evil.pkl").write_text("x")
    assert not is_whole(one)
    assert not is_whole(two)
    assert newest_whole(tmp_path) is None


def test_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in (2, 9, 10, 100):
        checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-final").mkdir()  # not ours
    rotate(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint-10",
        "checkpoint-100",
        "checkpoint-final",
    ]


def test_what_a_kept_checkpoint_needs_is_kept_too(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8):
        checkpoint(tmp_path, step)
    rotate(tmp_path, 1, lambda newest: tmp_path / "checkpoint-4")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-4", "checkpoint-8"]


def test_one_that_lacks_what_it_needs_is_left_out(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-4" / "trainer_state.json").write_text("damaged")
    needs = {6: 4, 4: 4, 2: 2}
    found = newest_whole(tmp_path, lambda one: tmp_path / f"checkpoint-{needs[int(one.name[11:])]}")
    assert found == tmp_path / "checkpoint-2"
