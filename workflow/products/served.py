"""The product `served`: the model in vLLM's server, asked the recipe's questions by the official client."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from workflow.engine import Engine, Question
from workflow.errors import BuildError
from workflow.progress import say
from workflow.recipe.answers import Sampling
from workflow.recipe.training import Execution
from workflow.schemas import check
from workflow.serving.asking import check_server, user
from workflow.serving.folder import write_folder
from workflow.serving.program import Spec
from workflow.serving.record import SERVED, ServedRecord
from workflow.serving.server import Server
from workflow.serving.template import Dialogue
from workflow.store.build import Job
from workflow.vllm_start import Setup

NAME = "served"
"""The model's name in this server; one that users start has the recipe's."""
ALONE = ["--no-enable-prefix-caching"]
"""Each question is answered as if it were the first, so that equal questions have equal answers."""


def make(job: Job) -> dict[str, Any]:
    """Write `served.json`, and the chat template and stop tokens that the model was served with.

    Returns:
        Counts: questions, differing (from the base model's replies; none without another model).

    Raises:
        BuildError: The server does not start, renders other tokens than training does, or the model's
            replies are not as expected or all the base model's.
    """
    asked = job.slice["serving"]
    dialogue = Dialogue(
        job.sources["template"], job.inputs["tokenizer"], job.slice["prompt"], asked["system"]
    )
    write_folder(dialogue, job.out)
    prompts = [dialogue.ids(user(question["ask"])) for question in asked["questions"]]
    setup = _setup(job, max(map(len, prompts)) + asked["max_tokens"])
    spec = Spec(
        model=str(job.inputs["model"]), name=NAME, folder=str(job.out), host="127.0.0.1", port=0,
        stop=dialogue.stop, length=setup.max_model_len, threads=setup.threads, gpus=setup.gpus,
        gpu_memory_utilization=setup.gpu_memory_utilization, extra=ALONE,
    )  # fmt: skip
    with Server(spec) as server:
        say("served: vLLM's server starts")
        replies = check_server(server.ready(), dialogue, asked["questions"], asked["max_tokens"])
    if "base" in job.inputs:
        said = _base_replies(job, prompts, dialogue, setup)
        replies = [r.model_copy(update={"base_reply": text}) for r, text in zip(replies, said, strict=True)]
    differing = sum(r.reply != r.base_reply for r in replies) if "base" in job.inputs else None
    if differing == 0 and asked["canary"]:
        raise BuildError(
            "serving: every reply is the base model's; train longer, ask what was trained, or say "
            "serving.canary: false"
        )
    record = ServedRecord(
        system=dialogue.default_system, stop=dialogue.stop, stop_token_ids=dialogue.chat.stop_ids,
        replies=replies, differing=differing,
    )  # fmt: skip
    _write(record, job.out / SERVED)
    return {"questions": len(replies)} | ({} if differing is None else {"differing": differing})


def _setup(job: Job, length: int) -> Setup:
    execution = Execution.model_validate(job.execution)
    return Setup(
        model=job.inputs["model"],
        max_model_len=length,
        gpu_memory_utilization=execution.gpu_memory_utilization,
        threads=job.resources.threads,
        gpus=job.resources.gpus,
    )


def _base_replies(job: Job, prompts: list[list[int]], dialogue: Dialogue, setup: Setup) -> list[str]:
    """What the model before training says to the very same tokens."""
    most = job.slice["serving"]["max_tokens"]
    sampling = Sampling(n=1, temperature=0.0, max_tokens=most, stop=dialogue.stop, seed=0)
    engine = Engine(replace(setup, model=job.inputs["base"]))
    questions = [Question(str(i), 0, prompt, 0) for i, prompt in enumerate(prompts)]
    said: dict[str, str] = {}
    try:
        for finished in engine.answer(questions, sampling, dialogue.chat.stop_ids):
            said |= {question.row: draw.text for question, draw in finished}
    finally:
        engine.close()
    return [said[question.row] for question in questions]


def _write(record: ServedRecord, path: Path) -> None:
    value = check("served", record.model_dump(mode="json"), path)
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
