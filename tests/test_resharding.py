"""shards made again: what an edit tokenizes, and that pieces never change what comes out."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from token_rows import TEMPLATE, job, row, tokenizer

from workflow import encoding, sorting, tokenizing
from workflow.errors import BuildError
from workflow.products import shards
from workflow.rendering import Renderer
from workflow.store import pieces
from workflow.tokenizing import Tokenizing

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def loaded() -> Renderer:
    return Renderer(tokenizer())


class Place:
    """Makes shards again and again with the same pieces."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch):
        self.root, self.said, self.runs = root, [""], 0
        monkeypatch.setattr(shards, "say", self.said.append)

    def make(self, rows: Rows, template: str = TEMPLATE, **chosen: Any) -> tuple[dict[str, Any], Path]:
        self.runs += 1
        chosen = {"pieces": self.root / "pieces", **chosen}
        one = job(self.root / f"{self.runs}", sorted(rows, key=lambda r: str(r["id"])), **chosen)
        one.sources["template"].write_text(template)
        counts = shards.make(one)
        return counts, one.out

    @property
    def tokenized(self) -> int:
        return int(self.said[-1].split()[1])


@pytest.fixture
def place(tmp_path: Path, loaded: Renderer, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(tokenizing, "Renderer", lambda *_: loaded)
    monkeypatch.setattr(sorting, "SHARD_ROWS", 10)
    return Place(tmp_path, monkeypatch)


def some(count: int, seed: int = 0) -> Rows:
    draw = random.Random(seed)
    return [row(i, "".join(draw.choices("小明红刚丽华军abc ", k=draw.randint(1, 30)))) for i in range(count)]


def read(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def boundaries(out: Path, rows: Rows) -> list[int]:
    """Places of rows that are the last of a shard."""
    sizes = [len(shards.Shard(path).ids) for path in sorted(out.glob("*.safetensors"))]
    return [sum(sizes[: i + 1]) - 1 for i in range(len(sizes) - 1)]


def test_one_edit_tokenizes_one_row_and_gives_what_a_new_build_gives(place: Place, tmp_path: Path) -> None:
    rows, draw = some(200), random.Random(1)
    _, out = place.make(rows)
    assert place.tokenized == 200
    assert 10 <= len(list(out.glob("*.safetensors"))) <= 40
    for turn in range(42):
        before = set(read(out).values())
        edge = boundaries(out, rows)
        index = draw.choice(edge) + draw.choice([0, 0, 1]) if turn % 2 else draw.randrange(len(rows))
        kind = turn % 3
        new = {**row(0, f"新{turn}"), "id": f"r{draw.randrange(200):03d}-{turn}"}
        if kind == 0:  # with ids that are digests, an edit is a row less and a row more elsewhere
            rows[index] = new
        elif kind == 1:
            del rows[index]
        else:
            rows = [*rows, new]
        rows.sort(key=lambda r: str(r["id"]))
        counts, out = place.make(rows)
        assert place.tokenized == (kind != 1)
        assert len(set(read(out).values()) - before) <= 3
        fresh, other = place.make(rows, pieces=tmp_path / f"none-{turn}")
        assert (counts, read(out)) == (fresh, read(other))


def test_an_edit_under_the_same_id_and_rows_moved_about(place: Place) -> None:
    rows = some(200)
    _, out = place.make(rows)
    edge = boundaries(out, rows)
    for index in (edge[0], edge[1] + 1, 0, 199):
        rows[index] = row(index, "改过了")
        _, out = place.make(rows)
        assert place.tokenized == 1
    place.make(rows[::-1])
    assert place.tokenized == 0


def test_what_no_message_shows_changes_no_byte(place: Place) -> None:
    rows = some(100)
    _, out = place.make(rows)
    told = [
        {**one, "gold": f'"id":"{i}","index":', "prompt": {**one["prompt"], "unused": i}}
        for i, one in enumerate(rows)
    ]
    _, other = place.make(told)
    assert place.tokenized == 0
    assert read(out) == read(other)


def test_a_comment_in_the_template_tokenizes_nothing(place: Place) -> None:
    rows = some(100)
    _, out = place.make(rows)
    commented = TEMPLATE.replace("{{ text }}", "{# 说明 #}{{ text }}{# 1\n2 #}") + "\n{# end #}"
    _, other = place.make(rows, commented)
    assert place.tokenized == 0
    assert read(out) == read(other)
    place.make(rows, TEMPLATE.replace("{{ text }}", "{{ text }}."))
    assert place.tokenized == 100


def test_limits_and_counts_are_the_same_from_pieces(place: Place) -> None:
    rows = some(100)
    for overflow, split in (("drop", "train"), ("truncate_right", "train"), ("drop", "test")):
        chosen = {"overflow": overflow, "split": split}
        counts, out = place.make(rows, limits=40, **chosen)
        again, other = place.make(rows, limits=40, **chosen)
        assert place.tokenized == 0
        assert (counts, read(out)) == (again, read(other))
        assert counts["dropped"] + counts["truncated"] + counts["over_limit"] > 0
    rows[5] = row(5, "x")
    again, other = place.make(rows, limits=40, overflow="drop")
    assert place.tokenized == 1
    assert (again, read(other)) == place_from_nothing(place, rows, limits=40, overflow="drop")


def place_from_nothing(place: Place, rows: Rows, **chosen: Any) -> tuple[dict[str, Any], dict[str, bytes]]:
    counts, out = place.make(rows, pieces=place.root / f"none-{place.runs}", **chosen)
    return counts, read(out)


def test_a_damaged_piece_is_found_and_made_again(place: Place) -> None:
    rows = some(120)
    counts, out = place.make(rows)
    whole, draw = read(out), random.Random(2)
    shutil.rmtree(out)  # else its links are damaged too
    files = sorted((place.root / "pieces").rglob("*.*"))
    for turn in range(12):
        path = draw.choice(files)
        body = bytearray(path.read_bytes())
        body[draw.randrange(len(body))] ^= 1 << draw.randrange(8)
        path.chmod(0o644)
        path.write_bytes(body if turn % 2 else body[: draw.randrange(len(body))])
        again, out = place.make(rows)
        assert (again, read(out)) == (counts, whole)
        assert 0 < place.tokenized < 60
        assert set(files) <= set((place.root / "pieces").rglob("*.*"))
        # a damaged donor is not used either
        path.chmod(0o644)
        path.write_bytes(body)
        _, out = place.make([row(3, "别的"), *(r for r in rows if r["id"] != "r003")])
        assert read(out) == place_from_nothing(place, [row(3, "别的"), *rows[:3], *rows[4:]])[1]
        place.make(rows)
        shutil.rmtree(out)


def test_pieces_are_links_and_a_piece_of_no_product_has_one(place: Place) -> None:
    _, out = place.make(some(50))
    files = list((place.root / "pieces").rglob("*.*"))
    assert {path.stat().st_nlink for path in files} == {2}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o444}
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    shutil.rmtree(out)
    assert {path.stat().st_nlink for path in files} == {1}


def test_without_hard_links_there_are_copies(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refused)
    rows = some(50)
    _, out = place.make(rows)
    _, other = place.make(rows)
    assert place.tokenized == 0
    assert read(out) == read(other)


def test_a_piece_that_is_swept_meanwhile(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = some(50)
    _, out = place.make(rows)
    listed = pieces.Pieces.__init__

    def swept(self: pieces.Pieces, folder: Path, ending: str) -> None:
        listed(self, folder, ending)
        shutil.rmtree(folder, ignore_errors=True)

    monkeypatch.setattr(pieces.Pieces, "__init__", swept)
    _, other = place.make(rows)
    assert place.tokenized == 50
    assert read(out) == read(other)


def test_a_job_that_stops_goes_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, whole, calls = some(200), Tokenizing.rows, []

    def stopping(self: Tokenizing, lines: Any) -> Any:
        calls.append(lines)
        if len(calls) == 6:
            raise BuildError("stopped")
        return whole(self, lines)

    with monkeypatch.context() as patched:
        patched.setattr(Tokenizing, "rows", stopping)
        with pytest.raises(BuildError, match="stopped"):
            place.make(rows)
    counts, out = place.make(rows)
    assert 0 < place.tokenized == 200 - sum(map(len, calls[:5]))
    assert (counts, read(out)) == place_from_nothing(place, rows)


def test_processes_make_the_same(place: Place) -> None:
    rows = some(150)
    one = place_from_nothing(place, rows)
    assert place_from_nothing(place, rows, threads=3) == one
    rows[77] = row(77, "一" * 2000)
    with pytest.raises(BuildError, match="row r077: .* are over the limits"):
        place.make(rows, threads=3, limits=500)


class ByCharacter:
    """Stands for a back-end that spells every text as it is, but by other tokens."""

    def __init__(self, backend: Any):
        self.backend = backend

    def encode_batch(self, texts: list[str], parallel: bool) -> Any:
        import awkward

        def ids(text: str) -> list[int]:
            return [i for c in text for i in self.backend.encode(c, add_special_tokens=False).ids]

        return awkward.Array([ids(text) for text in texts])


def test_a_back_end_with_other_tokens_is_not_used(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gigatoken")
    rows = some(100)
    right = place_from_nothing(place, rows)
    monkeypatch.setattr(tokenizing, "Renderer", Renderer)
    monkeypatch.setattr(encoding, "MANY", 1)
    monkeypatch.setattr(encoding, "_gigatoken", ByCharacter)
    monkeypatch.setattr(encoding, "SAMPLE", 1 << 40)  # the first of each shard must do
    for threads in (1, 2):
        assert place_from_nothing(place, rows, threads=threads) == right
        assert "gigatoken's tokens are not those of HF tokenizers" in place.said[-2]


def test_gigatoken_gives_the_same_bytes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gigatoken")
    rows = [*some(100), row(700, "e\u0301 \u212b ﬁ"), row(701, "user system 答案是\r\n\t\x00")]
    right = place_from_nothing(place, rows)
    monkeypatch.setattr(tokenizing, "Renderer", Renderer)
    monkeypatch.setattr(encoding, "MANY", 1)
    used: list[int] = []
    whole = encoding.Encoder._quickly

    def watched(self: encoding.Encoder, texts: Any) -> Any:
        found = whole(self, texts)
        used.append(found is not None)
        return found

    monkeypatch.setattr(encoding.Encoder, "_quickly", watched)
    assert place_from_nothing(place, rows) == right
    assert {0, 1} == set(used)  # text that Unicode composition changes goes to HF tokenizers
    assert len(place.said) == place.runs + 1
