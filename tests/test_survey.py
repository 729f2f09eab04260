"""What is asked of each row: choices of its own, messages in place of tokens, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_endpoint import chat
from tiny_predictions import job, shards

from workflow.errors import BuildError
from workflow.recipe.answers import Sampling
from workflow.store.build import Job
from workflow.survey import Prompted, held_to, prompted, sampling_of


def optional(folder: Path, *options: list[str] | None, ids: str = "ab") -> Job:
    """A job whose answers are letters of the rows' options."""
    rows = folder / "asked"
    rows.mkdir()
    lines = [{"id": id, "prompt": {"options": o} if o else {}} for id, o in zip(ids, options, strict=True)]
    (rows / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    made = job(
        folder / "j", shards(folder / "s", {"a": [1], "b": [1]}), rows, constraint={"choice": "options"}
    )
    made.inputs["rows"] = rows
    return made


def asked(made: Job) -> list[Prompted]:
    return list(prompted(made, sampling_of(made)))


def test_choices_are_the_row_s_own_and_part_of_what_is_asked(tmp_path: Path) -> None:
    first, second = asked(optional(tmp_path, ["x", "y"], ["x", "y", "z"]))
    assert (first.choices, second.choices) == (["A", "B"], ["A", "B", "C"])
    assert first.prompt == second.prompt and first.digest != second.digest
    assert Prompted("a", [1], None, None).digest not in (first.digest, second.digest)


def test_rows_without_options(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"sampling.constraint.choice: 'b' has no options; give a list"):
        asked(optional(tmp_path, ["x", "y"], None))


def test_rows_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="row 'b' is not the next one of its rows; build again"):
        asked(optional(tmp_path, ["x"], ["x"], ids="ac"))


def test_messages_decide_what_is_asked(tmp_path: Path) -> None:
    made = chat(tmp_path / "a", "http://h/v1")
    before = [row.digest for row in asked(made)]
    made.sources["template"].write_text("{% block user %}{{ q }}!{% endblock %}")
    after = asked(made)
    assert not {row.digest for row in after} & set(before)
    assert after[0].messages == [{"role": "user", "content": "Q0!"}]


@pytest.mark.parametrize("text", ["", "{", "true", "[]", '{"type": "number or so"}'])
def test_what_is_no_schema(tmp_path: Path, text: str) -> None:
    made = chat(tmp_path / "a", "http://h/v1", constraint={"choice": None, "regex": None})
    made.sources["json_schema"] = tmp_path / "answer.json"
    made.sources["json_schema"].write_text(text)
    with pytest.raises(BuildError, match=r"sampling.constraint.json_schema: .*answer.json: no JSON"):
        held_to(sampling_of(made))


def test_what_all_answers_are_held_to() -> None:
    def held(**constraint: Any) -> dict[str, Any] | None:
        base = {"n": 1, "temperature": 0, "max_tokens": 5, "seed": 0}
        return held_to(Sampling.model_validate(base | {"constraint": constraint or None}))

    assert held() is None and held(choice="options") is None
    assert held(choice=["a", "b"]) == {"choice": ["a", "b"]}
    assert held(regex="a+") == {"regex": "a+"}
