"""The product `predictions`: every test row answered `n` times by a model.

`predictions.jsonl` has one line per row, in the order of the shards (sorted by id):
`{"id", "prompt_tokens", "draws": [{"text", "tokens", "token_ids", "finish_reason"}]}`. `text` lacks the stop
token or string, `token_ids` and `tokens` have it; `finish_reason` is `stop` or `length`. With
`sampling.logprobs` a draw also has `logprob`, the mean log-probability of its tokens. What an endpoint does
not tell is null: `token_ids`, perhaps `tokens`, and `prompt_tokens` where it was sent messages.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from workflow.beside import rank_to_serve
from workflow.draws import Draws, Wanted
from workflow.endpoint import EndpointEngine
from workflow.engine import Draw, Engine, require_vllm
from workflow.errors import BuildError
from workflow.generation import TransformersEngine
from workflow.products import VERSIONS
from workflow.progress import Progress, say
from workflow.recipe.answers import Sampling
from workflow.recipe.engines import Endpoint, Vllm
from workflow.recipe.training import Execution
from workflow.store.address import address_of, canonical, sha256_of
from workflow.store.build import Job
from workflow.store.files import write_atomic
from workflow.store.store import read_manifest
from workflow.survey import Survey, held_to, look_through, prompted, questions, sampling_of
from workflow.tokens import read_rendering, read_rows
from workflow.vllm_start import Setup, position_limit

RECORDS = 1
"""Version of the lines that draws are kept in: another one does not read them."""
PREDICTIONS, RUN = "predictions.jsonl", "run.json"
MODELS = ("model", "adapter")
"""Inputs that answer."""


@dataclass
class Timing:
    """How this attempt went, for the run record."""

    engine_seconds: float = 0.0
    generate_seconds: float = 0.0
    tokens_per_second: float = 0.0
    reused_draws: int = 0
    retries: int = 0  # of an endpoint
    generated_draws: int = 0


def make(job: Job) -> dict[str, Any]:
    """Write `predictions.jsonl` to `job.out`, generating only the draws that no job made before.

    Returns:
        Counts: rows, draws, finish_length (draws that max_tokens ended), empty (draws without text),
        prompt_tokens (each row's once), completion_tokens (stop tokens included).

    Raises:
        BuildError: vLLM is not installed or cannot run the model, or a row is empty or too long for it.
    """
    sampling = sampling_of(job)
    held_to(sampling)  # a schema that is none is told before anything is started
    if isinstance(sampling.engine, Vllm):
        require_vllm()
    survey = look_through(prompted(job, sampling), job.inputs["shards"])
    each = 1 if sampling.temperature == 0 else sampling.n  # greedy draws are all equal
    wanted, timing = Wanted(survey.prompts, each, sampling.seed), Timing()
    writer = job.work.name  # the key, so that two jobs never write to one file
    with Draws(job.pieces / "predictions" / context(job), writer, wanted) as draws:
        timing.reused_draws, total = draws.count, each * len(survey.prompts)
        if draws.count:
            say(f"predictions: {draws.count} of {total} draws were made before")
        if draws.count < total:
            _generate(job, sampling, survey, draws, timing)
        timing.generated_draws = total - timing.reused_draws
        counts = _write(job, draws, sampling.n // each)
    write_atomic(job.work / RUN, canonical(asdict(timing)) + b"\n")
    return counts


def context(job: Job) -> str:
    """Digest of all that decides a draw besides its row's id, its prompt and its number."""
    asked = {name: value for name, value in job.slice["sampling"].items() if name != "n"}
    models = {role: read_manifest(job.inputs[role]).content for role in MODELS if role in job.inputs}
    stops = asdict(read_rendering(job.inputs["shards"]))
    versions = {"version": VERSIONS["predictions"], "records": RECORDS}
    schema = {role: sha256_of(path) for role, path in job.sources.items() if role == "json_schema"}
    return address_of({**versions, **models, **schema, "sampling": asked, "stops": stops})


def _generate(job: Job, sampling: Sampling, survey: Survey, draws: Draws, timing: Timing) -> None:
    """Start the engine and make the draws that are missing."""
    began = time.monotonic()
    progress = Progress("predictions", draws.wanted.draws * len(survey.prompts), "draws")
    engine = _engine(job, sampling, survey)
    started = time.monotonic()
    timing.engine_seconds = round(started - began, 3)
    say(f"predictions: {sampling.engine.name} started in {timing.engine_seconds:.1f} s")
    stops = read_rendering(job.inputs["shards"])
    sampling = sampling.model_copy(update={"stop": [*sampling.stop, *stops.stop]})
    asked = questions(prompted(job, sampling), draws, sampling)
    try:
        for finished in engine.answer(asked, sampling, stops.stop_token_ids):
            for question, draw in finished:
                draws.add(question, draw)
            draws.sync_if_due()
            progress.reached(draws.count, _rate(engine.generated_tokens, started))
    finally:
        timing.retries = getattr(engine, "retries", 0)
        engine.close()
    timing.generate_seconds = round(time.monotonic() - started, 3)
    timing.tokens_per_second = round(engine.generated_tokens / max(timing.generate_seconds, 1e-3), 1)


def _engine(job: Job, sampling: Sampling, survey: Survey) -> Engine | TransformersEngine | EndpointEngine:
    execution, adapter = Execution.model_validate(job.execution), job.inputs.get("adapter")
    if isinstance(sampling.engine, Endpoint):
        return EndpointEngine(sampling.engine, execution.endpoint)
    model = job.inputs["model"]
    length = context_length(model, survey, sampling.max_tokens, execution.max_model_len)
    if not isinstance(sampling.engine, Vllm):
        return TransformersEngine(model, adapter, job.resources.threads)
    return Engine(
        Setup(
            model=model,
            max_model_len=length,
            gpu_memory_utilization=execution.gpu_memory_utilization,
            threads=job.resources.threads,
            gpus=job.resources.gpus,
            prefix_caching=execution.prefix_caching,
            engine=sampling.engine,
            adapter=adapter,
            rank=rank_to_serve(model, adapter) if adapter else 0,
        )
    )


def _rate(tokens: int, since: float) -> str:
    return f"{tokens / max(time.monotonic() - since, 1e-3):.0f} tokens/s" if tokens else ""


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


def _write(job: Job, draws: Draws, times: int) -> dict[str, int]:
    """Write all rows in the order of the shards, each draw `times` over, one row in memory, and count."""
    counts = dict.fromkeys(
        ("rows", "draws", "finish_length", "prompt_tokens", "completion_tokens", "empty"), 0
    )
    with (job.out / PREDICTIONS).open("wb") as file:
        for row in read_rows(job.inputs["shards"]):
            prompt = None if "prompt" in job.slice else row.prompt_tokens  # messages: the server counts them
            drawn = draws.read(row.id) * times
            line = {
                "id": row.id,
                "prompt_tokens": prompt,
                "draws": [_published(d) for d in drawn],
            }
            file.write(canonical(line) + b"\n")
            counts["rows"] += 1
            counts["draws"] += len(drawn)
            counts["prompt_tokens"] += prompt or 0
            counts["finish_length"] += sum(draw.finish_reason == "length" for draw in drawn)
            counts["completion_tokens"] += sum(draw.tokens or 0 for draw in drawn)
            counts["empty"] += sum(not draw.text for draw in drawn)
    return counts


def _published(draw: Draw) -> dict[str, Any]:
    return draw.record | {"tokens": draw.tokens}
