"""Rows with all that was answered to them: a few telling ones, and as many as a page can hold."""

from __future__ import annotations

import json
from bisect import insort
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from workflow.products.rows import ROWS
from workflow.report.browser import Kept, Worth
from workflow.report.inputs import Inputs
from workflow.results import PREDICTIONS, VOTED, AskedRow, Drawn, Prediction, VotedLine, read_together
from workflow.tokens_shown import digest_of_id
from workflow.voting import Reader

SHOWN, EACH = 12, 4
DRAWS = 3
"""Draws shown with their text; of the others only the answer is."""
GREEDY = {"base": "base model", "greedy": "this model, greedy"}
"""Role with one text per row -> its label."""
KINDS = {
    "tuned": "tuning put it right",
    "voted": "voting put the first draw right",
    "wrong": "still wrong",
    "other": "",
}
"""Kind of row -> what is said of it, the telling ones first."""


@dataclass(frozen=True)
class Answer:
    """One text and the answer read from it; `right` is None where gold is unknown."""

    role: str
    label: str
    text: str
    answer: str | None
    right: bool | None
    cut: bool


@dataclass(frozen=True)
class Sample:
    """A row, what was asked, and what was answered; there may be no vote."""

    kind: str
    id: str
    gold: list[str]
    prompt: list[tuple[str, str]]
    answers: list[Answer]
    others: list[str | None]
    vote: VotedLine | None

    def record(self, values: dict[str, Any]) -> dict[str, Any]:
        """The row as the page's script reads it; `values`: metric -> system -> what the row is worth."""
        vote = self.vote and {
            **self.vote.model_dump(mode="json", include={"answer", "votes", "abstentions", "tie"}),
            "right": self.vote.correct,
        }
        answers = [asdict(answer) for answer in self.answers]
        told = {"id": self.id, "gold": self.gold, "prompt": self.prompt, "answers": answers, "vote": vote}
        return (
            told | ({"others": self.others} if self.others else {}) | ({"values": values} if values else {})
        )


@dataclass
class _Choice:
    """The rows of one kind whose ids have the smallest digests, so that no order of reading matters."""

    held: list[tuple[bytes, Sample]] = field(default_factory=list)

    def wants(self, digest: bytes) -> bool:
        return len(self.held) < SHOWN or digest < self.held[-1][0]

    def add(self, digest: bytes, sample: Sample) -> None:
        insort(self.held, (digest, sample), key=lambda pair: pair[0])
        del self.held[SHOWN:]


@dataclass(frozen=True)
class Predictions:
    """What a page shows of the answers."""

    telling: list[Sample]
    browsed: Kept
    read: bool  # whether answers are read out of the texts


def predictions(inputs: Inputs, recipe: dict[str, Any]) -> Predictions | None:
    """About `SHOWN` rows, `EACH` of every telling kind if so many, and all that a page holds; in one pass.

    Raises:
        BuildError: The inputs are not about the same rows, or damaged.
    """
    if not {"rows_test", "predictions"} <= inputs.folders.keys():
        return None
    roles = [role for role in (*GREEDY, "predictions") if role in inputs]
    voting = recipe.get("voting") if "voted" in inputs else None
    reader = Reader.of(voting["answer"]) if voting else None
    choices: defaultdict[str, _Choice] = defaultdict(_Choice)
    files: list[tuple[Path, type[Any]]] = [(inputs.folders["rows_test"] / ROWS, AskedRow)]
    files += [(inputs.folders[role] / PREDICTIONS, Prediction) for role in roles]
    files += [(inputs.folders["voted"] / VOTED, VotedLine)] if voting else []
    browsed, worth = Kept(), Worth(inputs)
    for row, *records in read_together(*files):
        drawn = {role: record.draws for role, record in zip(roles, records, strict=False)}
        vote, values = records[-1] if voting else None, worth.of(row.id)
        choice = choices[kind := _kind(vote, row, drawn, reader)]
        digest = digest_of_id(row.id)
        telling, kept = choice.wants(digest), browsed.wants(digest)
        if telling or kept:
            sample = _sample(kind, row, vote, drawn, reader)
            if telling:
                choice.add(digest, sample)
            if kept:
                browsed.add(digest, row.id, sample.record(values))
    return Predictions(_chosen(choices), browsed, reader is not None)


def _kind(
    vote: VotedLine | None, row: AskedRow, drawn: Mapping[str, list[Drawn]], reader: Reader | None
) -> str:
    if not vote or not vote.gold or not reader:
        return "other"
    if not vote.correct:
        return "wrong"
    answers = {role: reader.read(draws[0].text, row.letters) for role, draws in drawn.items()}
    accepted = reader.accepted(row)
    right = {role: answer in accepted for role, answer in answers.items()}
    if not right["predictions"]:
        return "voted"
    return "tuned" if right.get("greedy") and right.get("base") is False else "other"


def _chosen(choices: Mapping[str, _Choice]) -> list[Sample]:
    """`EACH` of every kind; where a kind has fewer, the others fill up, still in the order of `KINDS`."""
    found = {kind: [sample for _, sample in choices[kind].held] for kind in KINDS if kind in choices}
    take = {kind: min(EACH, len(rows)) for kind, rows in found.items() if kind != "other"}
    for kind, rows in found.items():
        room = SHOWN - sum(take.values())
        take[kind] = min(len(rows), take.get(kind, 0) + room)
    return [sample for kind, rows in found.items() for sample in rows[: take[kind]]]


def _sample(
    kind: str, row: AskedRow, vote: VotedLine | None, drawn: Mapping[str, list[Drawn]], reader: Reader | None
) -> Sample:
    texts = [(role, label, drawn[role][0]) for role, label in GREEDY.items() if role in drawn]
    draws = drawn["predictions"]
    texts += [("predictions", f"draw {i}", draw) for i, draw in enumerate(draws[:DRAWS], start=1)]
    answers = [_answer(*given, row, reader) for given in texts]
    others = [reader.read(draw.text, row.letters) for draw in draws[DRAWS:]] if reader else []
    return Sample(kind, row.id, row.gold, _prompt(row.asked), answers, others, vote)


def _answer(role: str, label: str, draw: Drawn, row: AskedRow, reader: Reader | None) -> Answer:
    answer = reader.read(draw.text, row.letters) if reader else None
    right = answer in reader.accepted(row) if row.gold and reader else None
    return Answer(role, label, shortened(draw.text, 1200), answer, right, draw.finish_reason == "length")


def asked_as_text(row: AskedRow) -> str:
    """What a row asks, whole: a single field as it is, several by name."""
    fields = {name: _field(name, value) for name, value in row.asked.items() if value not in (None, "", [])}
    if len(fields) == 1:
        return next(iter(fields.values()))
    return "\n".join(f"{name}: {text}" for name, text in fields.items())


def _field(name: str, value: Any) -> str:
    if isinstance(value, list) and name == "options":
        return "\n".join(f"{letter}. {_text(o)}" for letter, o in zip(ascii_uppercase, value, strict=False))
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return "\n".join(value)
    return _text(value)


def _prompt(prompt: dict[str, Any]) -> list[tuple[str, str]]:
    """Fields of a row as texts; options get the letters that answers name."""
    shown = []
    for name, value in prompt.items():
        if value not in (None, ""):
            shown.append((name, shortened(_field(name, value), 1500)))
    return shown


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def shortened(text: str, most: int) -> str:
    """At most about `most` characters: two thirds from the beginning and the rest from the end."""
    if len(text) <= most:
        return text
    end = most // 3
    return f"{text[: most - end]} […{len(text) - most:,} characters…] {text[-end:]}"
