"""The product `predictions`: every test row answered `n` times by a model.

`predictions.jsonl` has one line per row, in the order of the shards (sorted by id):
`{"id", "prompt_tokens", "draws": [{"text", "tokens", "token_ids", "finish_reason"}]}`. `text` lacks the stop
token or string, `token_ids` and `tokens` have it; `finish_reason` is `stop` or `length`.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from workflow.engine import Draw, Engine, Question, Setup, position_limit, require_vllm
from workflow.errors import BuildError
from workflow.progress import Progress, say
from workflow.recipe.answers import Sampling
from workflow.recipe.training import Execution
from workflow.store.address import canonical
from workflow.store.build import Job
from workflow.store.files import sync_folder, write_atomic
from workflow.tokens import TokenRow, read_rendering, read_rows

VERSION = 1
PREDICTIONS, RECORDS, RUN = "predictions.jsonl", "records.jsonl", "run.json"
SYNC_SECONDS = 1.0  # most work that a power cut may cost; a kill costs none


@dataclass(frozen=True)
class Survey:
    """What must be known of all rows before the first is asked."""

    prompts: dict[str, str]  # row id -> digest of the prompt's token ids
    longest: str = ""
    longest_tokens: int = 0


@dataclass
class Timing:
    """How long this attempt took, for the run record."""

    engine_seconds: float = 0.0
    generate_seconds: float = 0.0
    tokens_per_second: float = 0.0
    resumed_rows: int = 0


def make(job: Job) -> dict[str, Any]:
    """Write `predictions.jsonl` to `job.out`, going on from what `job.work` has.

    Returns:
        Counts: rows, draws, finish_length (draws that max_tokens ended), empty (draws without text),
        prompt_tokens (each row's once), completion_tokens (stop tokens included).

    Raises:
        BuildError: vLLM is not installed or cannot run the model, or a row is empty or too long for it.
    """
    require_vllm()
    sampling = Sampling.model_validate(job.slice["sampling"])
    survey = look_through(job.inputs["shards"])
    timing = Timing()
    with Records(job.work / RECORDS, survey.prompts, sampling.n) as records:
        timing.resumed_rows = len(records.places)
        if timing.resumed_rows:
            say(f"predictions: {timing.resumed_rows} of {len(survey.prompts)} rows were answered before")
        if len(records.places) < len(survey.prompts):
            _generate(job, sampling, survey, records, timing)
        counts = _write(job.out / PREDICTIONS, job.inputs["shards"], records)
    write_atomic(job.work / RUN, canonical(asdict(timing)) + b"\n")
    return counts


def look_through(shards: Path) -> Survey:
    """Digest every prompt and find the longest.

    Raises:
        BuildError: A prompt is empty, or two rows have one id.
    """
    prompts: dict[str, str] = {}
    longest, most = "", 0
    for row in read_rows(shards):
        tokens = _prompt(row)
        if not tokens:
            raise BuildError(f"{shards}: row {row.id!r} has an empty prompt; correct the template or the row")
        if row.id in prompts:
            raise BuildError(f"{shards}: two rows have the id {row.id!r}; build again")
        prompts[row.id] = prompt_digest(tokens)
        if len(tokens) > most:
            longest, most = row.id, len(tokens)
    return Survey(prompts, longest, most)


def _prompt(row: TokenRow) -> list[int]:
    ids: list[int] = row.input_ids[: row.prompt_tokens].tolist()
    return ids


def prompt_digest(tokens: list[int]) -> str:
    """blake2b-64 of a prompt's token ids, in hex."""
    return hashlib.blake2b(json.dumps(tokens).encode(), digest_size=8).hexdigest()


class Records:
    """The file of finished rows, one line each; it survives kills, and power cuts but for the last second."""

    def __init__(self, path: Path, prompts: dict[str, str], n: int):
        """Read what is there: rows of `prompts` with their very prompt and `n` draws count as finished."""
        self.path, self.prompts, self.n = path, prompts, n
        self.places: dict[str, tuple[int, int]] = {}  # row id -> offset and length of its line
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._end = self._recover()
        self._synced, self._dirty = time.monotonic(), False
        sync_folder(path.parent)

    def __enter__(self) -> Records:
        """The file is open from the beginning."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Flush what was written, however the work ended."""
        os.fsync(self._file)
        os.close(self._file)

    def _recover(self) -> int:
        """Note where the good lines are; cut off the rest, from the first that a crash left torn."""
        end = 0
        with self.path.open("rb") as file:
            for line in file:
                record = _parsed(line)
                if record is None:
                    break
                self._note(record, end, len(line))
                end += len(line)
            size = file.seek(0, os.SEEK_END)
        if end < size:
            say(f"predictions: {self.path}: cut off {size - end} bytes, a record not written whole")
            os.ftruncate(self._file, end)
        return end

    def _note(self, record: dict[str, Any], offset: int, length: int) -> None:
        row = record["id"]
        if self.prompts.get(row) == record["prompt_sha"] and len(record["draws"]) == self.n:
            self.places.setdefault(row, (offset, length))

    def append(self, row: str, answer: list[Draw]) -> None:
        """Write one row in a single write, so that a kill leaves it whole or not there."""
        draws = [_without_none(asdict(draw)) for draw in answer]
        record = {"id": row, "prompt_sha": self.prompts[row], "draws": draws}
        line = canonical(record) + b"\n"
        written = os.write(self._file, line)
        if written != len(line):  # a full disk; the torn line is cut off by the next attempt
            raise BuildError(f"{self.path}: the disk is full; make room and build again, nothing is lost")
        self._note(record, self._end, len(line))
        self._end += len(line)
        self._dirty = True

    def sync_if_due(self) -> None:
        """Flush to disk what is older than `SYNC_SECONDS`; call it often."""
        if self._dirty and time.monotonic() - self._synced >= SYNC_SECONDS:
            os.fsync(self._file)
            self._synced, self._dirty = time.monotonic(), False

    def draws(self, row: str) -> list[dict[str, Any]]:
        """The draws of a finished row, read back from the file."""
        offset, length = self.places[row]
        found: list[dict[str, Any]] = json.loads(os.pread(self._file, length, offset))["draws"]
        return found


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A record, or None if the line is not one: torn, or zeros after a power cut."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(record, dict) and {"id", "prompt_sha", "draws"} <= record.keys()
    return record if whole else None


def _without_none(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if value is not None}


def _generate(job: Job, sampling: Sampling, survey: Survey, records: Records, timing: Timing) -> None:
    """Start the engine and answer the rows that have no record yet."""
    began = time.monotonic()
    execution = Execution.model_validate(job.execution)
    length = context_length(job.inputs["model"], survey, sampling.max_tokens, execution.max_model_len)
    progress = Progress("predictions", len(survey.prompts), "rows")
    setup = Setup(
        model=job.inputs["model"],
        max_model_len=length,
        gpu_memory_utilization=execution.gpu_memory_utilization,
        threads=job.resources.threads,
        gpus=job.resources.gpus,
    )
    engine = Engine(setup)
    started = time.monotonic()
    timing.engine_seconds = round(started - began, 3)
    say(f"predictions: vLLM started in {timing.engine_seconds:.1f} s")
    stop_token_ids = read_rendering(job.inputs["shards"]).stop_token_ids
    try:
        for finished in engine.answer(_unanswered(job.inputs["shards"], records), sampling, stop_token_ids):
            for row, draws in finished.items():
                records.append(row, draws)
            records.sync_if_due()
            progress.reached(len(records.places), _rate(engine.generated_tokens, started))
    finally:
        engine.close()
    timing.generate_seconds = round(time.monotonic() - started, 3)
    timing.tokens_per_second = round(engine.generated_tokens / max(timing.generate_seconds, 1e-3), 1)


def _rate(tokens: int, since: float) -> str:
    return f"{tokens / max(time.monotonic() - since, 1e-3):.0f} tokens/s" if tokens else ""


def _unanswered(shards: Path, records: Records) -> Iterator[Question]:
    resumed = frozenset(records.places)
    for row in read_rows(shards):
        if row.id not in resumed:
            yield Question(row.id, _prompt(row))


def context_length(model: Path, survey: Survey, max_tokens: int, wanted: int | None) -> int:
    """Tokens of vLLM's context: what the longest row needs, or the wanted length if that is enough.

    Too short a context would end answers early, and how it runs must not change what comes out.

    Raises:
        BuildError: The longest row does not fit.
    """
    needed = survey.longest_tokens + max_tokens
    row = f"row {survey.longest!r}: {survey.longest_tokens} prompt tokens + sampling.max_tokens {max_tokens}"
    if wanted is not None and wanted < needed:
        raise BuildError(
            f"{row} = {needed}, but execution.max_model_len is {wanted}; raise it or leave it out"
        )
    limit = position_limit(model)
    if limit is not None and max(needed, wanted or 0) > limit:
        what = row if needed > limit else f"execution.max_model_len is {wanted}"
        raise BuildError(
            f"{what}: {max(needed, wanted or 0)} tokens, but the model reaches {limit} "
            f"(max_position_embeddings in {model / 'config.json'}); "
            "lower sampling.max_tokens, prompt.max_length or execution.max_model_len"
        )
    return wanted or needed


def _write(path: Path, shards: Path, records: Records) -> dict[str, int]:
    """Write all rows in the order of the shards, one in memory at a time, and count."""
    counts = dict.fromkeys(
        ("rows", "draws", "finish_length", "prompt_tokens", "completion_tokens", "empty"), 0
    )
    with path.open("wb") as file:
        for row in read_rows(shards):
            draws = [_published(draw) for draw in records.draws(row.id)]
            line = {"id": row.id, "prompt_tokens": row.prompt_tokens, "draws": draws}
            file.write(canonical(line) + b"\n")
            counts["rows"] += 1
            counts["draws"] += len(draws)
            counts["prompt_tokens"] += row.prompt_tokens
            counts["finish_length"] += sum(draw["finish_reason"] == "length" for draw in draws)
            counts["completion_tokens"] += sum(draw["tokens"] for draw in draws)
            counts["empty"] += sum(not draw["text"] for draw in draws)
    return counts


def _published(draw: dict[str, Any]) -> dict[str, Any]:
    return {
        "text": draw["text"],
        "tokens": len(draw["token_ids"]),
        "token_ids": draw["token_ids"],
        "finish_reason": draw["finish_reason"],
    }
