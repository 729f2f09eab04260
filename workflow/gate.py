"""The data gate: what was counted of the rows, in sentences, and what the recipe refuses of it.

What must hold for every row is proven where the row is made (`workflow.rendering`, `workflow.tokenizing`)
and stops the build at the first that fails. What may happen is counted, in `shards` over the rows as the
model sees them and in `overlap` between training and test rows; a recipe says how much of it is too much.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from workflow.errors import BuildError


def refuse_rows(counts: Mapping[str, int], total: int, allowed: Mapping[str, float | None]) -> None:
    """Refuse what `shards` counted, by the recipe's section `gate`.

    Args:
        counts: What was counted.
        total: Rows there were, those left out too.
        allowed: Threshold of that section -> share; None, or not there: not refused.

    Raises:
        BuildError: More, or less, than is allowed.
    """
    if not counts["rows"]:
        raise BuildError(f"every one of {total} rows is over the limits of section prompt; raise them")
    cut = sum(counts[name] for name in ("dropped", "truncated", "over_limit"))
    if _over(cut, total, allowed.get("max_cut")):
        raise BuildError(
            f"{cut} of {total} rows ({share(cut, total)}) are over the limits of section prompt, more than "
            f"gate.max_cut {allowed['max_cut']:g} allows; raise the limits or max_cut"
        )
    again, rows = counts["duplicates"], counts["rows"]
    if _over(again, rows, allowed.get("max_duplicates")):
        raise BuildError(
            f"{again} of {rows} rows ({share(again, rows)}) say what another row says, more "
            f"than gate.max_duplicates {allowed['max_duplicates']:g} allows; "
            "take them out of the data, or raise max_duplicates"
        )
    least = allowed.get("min_trained")
    if least is not None and counts["trained_tokens"] < least * counts["tokens"]:
        raise BuildError(
            f"{share(counts['trained_tokens'], counts['tokens'])} of the training tokens are trained, less "
            f"than gate.min_trained {least:g} asks; shorten the prompts, or lower min_trained"
        )


def refuse_overlap(counts: Mapping[str, int], allowed: float | None, example: str) -> None:
    """Refuse test rows that training rows show; `example` names one.

    Raises:
        BuildError: There are more than `allowed`, a share, permits.
    """
    found, rows = counts["contaminated_test_rows"], counts["test_rows"]
    if _over(found, rows, allowed):
        raise BuildError(
            f"{found} of {rows} test rows ({share(found, rows)}) are in the training rows, {example}, more "
            f"than gate.max_contaminated {allowed:g} allows; take them out of one of the two, or raise it"
        )


def _over(count: int, total: int, allowed: float | None) -> bool:
    return allowed is not None and count > allowed * total


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def share(count: int, total: int) -> str:
    """A share in per cent with one decimal; only 0 reads as 0.0%, only 1 as 100.0%."""
    percent = f"{count / total:.1%}" if total else "0.0%"
    if count and percent == "0.0%":
        return "less than 0.1%"
    return "more than 99.9%" if count < total and percent == "100.0%" else percent


def of_rows(counts: Mapping[str, Any], train: bool) -> Iterator[str]:
    """What `shards` counted of a split, one plain sentence after the other."""
    rows, tokens = counts["rows"], counts["tokens"]
    yield f"{_many(rows, 'row')} of {tokens:,} tokens; the longest has {counts['longest']:,}."
    if train:
        trained = counts["trained_tokens"]
        yield f"{trained:,} tokens are trained, {share(trained, tokens)} of all."
        yield "Every row has a trained token, and all that is trained ends where generation stops."
    yield _limits(counts, train)
    if counts["duplicates"]:
        again, said = counts["duplicates"], "prompt and answer" if train else "prompt"
        yield f"{_many(again, 'row')} ({share(again, rows)}) repeating another before, {said}."
    else:
        yield "No two rows say the very same."


def _limits(counts: Mapping[str, Any], train: bool) -> str:
    total = counts["rows"] + counts["dropped"]
    kinds = {
        "dropped": "left out", "truncated": "cut", "over_limit": "longer than the limits but kept whole",
    }  # fmt: skip
    met = [f"{counts[kind]:,} {words}" for kind, words in kinds.items() if counts[kind]]
    if not met:
        return "No row is over the limits."
    hit = sum(counts[kind] for kind in kinds)
    lost = [_many(counts["cut_tokens"], "token")] if counts["cut_tokens"] else []
    lost += [_many(counts["lost_answers"], "answer")] if train else []
    ending = f"; lost with them: {', '.join(lost)}" if lost else ""
    return f"{hit:,} of {total:,} rows ({share(hit, total)}) met the limits: {', '.join(met)}{ending}."


def of_overlap(counts: Mapping[str, Any]) -> Iterator[str]:
    """What `overlap` counted, in sentences."""
    rows, found = counts["test_rows"], counts["contaminated_test_rows"]
    if not found:
        yield f"None of the {rows:,} test rows is shown by a training row."
    else:
        yield (
            f"{found:,} of {rows:,} test rows ({share(found, rows)}) are shown by training rows: "
            f"{counts['exact_test_rows']:,} word for word, {counts['normalised_test_rows']:,} but for case, "
            f"spaces and punctuation, {counts['similar_test_rows']:,} with at least 70% of their 8-grams."
        )
    if counts["longest_match"]:
        longest = counts["longest_match"]
        yield f"The longest stretch of a test row that training rows show has {longest:,} words."
