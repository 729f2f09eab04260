"""shards: token rows within the recipe's limits, counted, and read back as written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from token_rows import job, row, tokenizer

from workflow import tokenizing
from workflow.errors import BuildError
from workflow.products import shards
from workflow.rendering import Renderer
from workflow.tokens import read_rendering, read_rows


@pytest.fixture(scope="module")
def loaded() -> Renderer:
    return Renderer(tokenizer())


@pytest.fixture(autouse=True)
def _one_tokenizer(loaded: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizing, "Renderer", lambda *_: loaded)


def made(tmp_path: Path, rows: list[dict[str, Any]], split: str = "train", overflow: str = "error",
         limits: Any = 10_000) -> tuple[dict[str, Any], list[Any]]:  # fmt: skip
    counts = shards.make(job(tmp_path, rows, split, overflow, limits))
    return counts, list(read_rows(tmp_path / "out"))


def tokens(loaded: Renderer, text: str) -> int:
    return len(loaded.encode([text], ["r"]).ids)


def overhead(loaded: Renderer) -> int:
    """Tokens of the chat around the user's text."""
    return tokens(loaded, loaded.text([{"role": "user", "content": ""}], "r").prompt)


def test_mask_and_counts(tmp_path: Path, loaded: Renderer) -> None:
    counts, [one] = made(tmp_path, [row(1, "小明", "答案是：A")])
    text = "<|im_start|>user\n小明<|im_end|>\n<|im_start|>assistant\n"
    decode = loaded.backend.decode
    assert decode(one.input_ids[: one.prompt_tokens].tolist(), skip_special_tokens=False).endswith(text)
    labels = one.input_ids[one.trained == 1].tolist()
    assert decode(labels, skip_special_tokens=False) == "答案是：A<|im_end|>"
    assert one.trained.tolist() == [0] * one.prompt_tokens + [1] * len(labels)
    assert counts == {
        "rows": 1, "tokens": len(one.input_ids), "trained_tokens": len(labels), "longest": len(one.input_ids),
        "dropped": 0, "truncated": 0, "cut_tokens": 0, "over_limit": 0, "lost_answers": 0, "duplicates": 0,
    }  # fmt: skip
    assert read_rendering(tmp_path / "out").stop_token_ids == [418, 420]


def test_error_names_the_row(tmp_path: Path, loaded: Renderer) -> None:
    limit = overhead(loaded) + 3 + 2
    made(tmp_path, [row(1, "一二三")], limits=limit)
    with pytest.raises(BuildError, match=r"row r002: \d+ prompt and 2 answer tokens are over the limits"):
        shards.make(job(tmp_path, [row(1, "一二三"), row(2, "一二三四")], "train", "error", limit))


def test_drop(tmp_path: Path, loaded: Renderer) -> None:
    rows = [row(1, "一二三"), row(2, "一二三四五六"), row(3, "一", "二二二二二二二")]
    counts, found = made(tmp_path, rows, overflow="drop", limits=overhead(loaded) + 5)
    assert [one.id for one in found] == ["r001"]
    assert (counts["rows"], counts["dropped"], counts["truncated"]) == (1, 2, 0)


def test_a_test_row_is_kept_whole_under_drop(tmp_path: Path, loaded: Renderer) -> None:
    rows = [row(1, "一二三"), row(2, "一二三四五六七")]
    counts, found = made(tmp_path, rows, "test", "drop", overhead(loaded) + 5)
    assert [len(one.input_ids) - overhead(loaded) for one in found] == [3, 7]
    assert (counts["rows"], counts["dropped"], counts["over_limit"], counts["trained_tokens"]) == (2, 0, 1, 0)


LONG = [
    "一二三四五六七八九十" * 3,
    "𠮷𠮷𠮷𠮷𠮷𠮷𠮷𠮷",
    "éèê 𠮷 ab  cd   \n\n ef",
    "👩‍👩‍👧‍👦" * 3,
    "a b c d e f g h i j",
]


@pytest.mark.parametrize("overflow", ["truncate_left", "truncate_right"])
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("room", [1, 4, 7, 8])
@pytest.mark.parametrize("text", LONG)
def test_truncation(
    tmp_path: Path, loaded: Renderer, overflow: str, split: str, room: int, text: str
) -> None:
    answer = "答案是：A"
    stop = tokens(loaded, answer) + 1 if split == "train" else 0
    limit = overhead(loaded) + room + stop
    try:
        counts, [one] = made(tmp_path, [row(1, text, answer)], split, overflow, limit)
    except BuildError as error:
        assert "nothing of the user turn would be left" in str(error)
        assert room == 1
        return
    assert len(one.input_ids) <= limit
    assert counts["truncated"] == 1
    assert counts["cut_tokens"] == overhead(loaded) + tokens(loaded, text) - one.prompt_tokens
    prompt = loaded.backend.decode(one.input_ids[: one.prompt_tokens].tolist(), skip_special_tokens=False)
    kept = prompt.rpartition("user\n")[2].partition("<|im_end|>")[0]
    assert kept
    assert text.endswith(kept) if overflow == "truncate_left" else text.startswith(kept)
    labels = one.input_ids[one.trained == 1].tolist()
    assert loaded.backend.decode(labels, skip_special_tokens=False) == (f"{answer}<|im_end|>" if stop else "")


def test_an_answer_is_never_cut(tmp_path: Path, loaded: Renderer) -> None:
    for limits in (overhead(loaded) + 3, (None, 1000, 4)):
        with pytest.raises(BuildError, match="row r001: .* are over the limits|nothing of the user turn"):
            made(tmp_path, [row(1, "一", "二" * 40)], "train", "truncate_right", limits)


def test_source_and_target_limits(tmp_path: Path, loaded: Renderer) -> None:
    limits = (None, overhead(loaded) + 2, 3)
    counts, found = made(tmp_path, [row(1, "一二三四"), row(2, "一")], "train", "truncate_right", limits)
    assert [one.prompt_tokens - overhead(loaded) for one in found] == [2, 1]
    assert (counts["truncated"], counts["cut_tokens"]) == (1, 2)


def test_the_sources_own_prompt(tmp_path: Path) -> None:
    made(tmp_path, [row(1, "same text", rendered="same text")])
    message = (
        r"row r001: the source's own prompt is not what p.jinja makes: at character 7 it has 'same text'"
    )
    with pytest.raises(BuildError, match=message):
        shards.make(job(tmp_path, [row(1, "same test", rendered="same text")], "train", "error", 100))


def test_training_rows_in_several_templates(tmp_path: Path, loaded: Renderer) -> None:
    """Each row in one of them, by its id: edited or joined by others it stays with its template."""
    rows = [row(i, f"文{i}", rendered="x") for i in range(40)]
    prompts = []
    for number, given in enumerate((rows, rows[::3], [{**one, "target": {"answer": "改"}} for one in rows])):
        one = job(tmp_path / f"{number}", given, pieces=tmp_path / "pieces")
        for name in ("short", "long"):
            path = one.sources["template"].with_name(f"{name}.jinja")
            path.write_text(
                one.sources["template"].read_text().replace("{{ text }}", f"{name} {{{{ text }}}}")
            )
            one.sources[f"template {name}"] = path
        shards.make(one)
        texts = {
            r.id: loaded.backend.decode(r.input_ids[: r.prompt_tokens].tolist()) for r in read_rows(one.out)
        }
        prompts.append(texts)
    shown = [sum(word in text for text in prompts[0].values()) for word in ("short", "long")]
    assert min(*shown, 40 - sum(shown)) > 4
    assert prompts[1] == {id: prompts[0][id] for id in prompts[1]} and prompts[2] == prompts[0]


def test_no_row_left(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="every one of 2 rows is over the limits"):
        made(tmp_path, [row(1, "一"), row(2, "二")], overflow="drop", limits=1)
