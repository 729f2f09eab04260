"""vLLM in this process: token-id prompts in, draws out as they finish.

Not `vllm.LLM`: its `generate` returns when everything is done, and importing it loads a web server.
Below it is the same engine, driven one step at a time (vLLM 0.30).
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Literal

from workflow.errors import BuildError
from workflow.prompts import Message
from workflow.recipe.answers import Sampling
from workflow.vllm_start import Setup, start

LOGPROB_PLACES = 4
PROBED = 5  # first tokens that two models are compared by
SEEDS = 1 << 62  # vLLM keeps a seed as int64, and the number of the draw is added to it


Finish = Literal["stop", "length", "content_filter"]
"""Why a draw ended; only hosted services end one by a filter."""


@dataclass(frozen=True)
class Question:
    """One draw to be made: its row and number, the token ids of its prompt, its seed.

    `held` is what the answer is held to, as vLLM's StructuredOutputsParams names it: `choice`, `json` or
    `regex`. `messages` are the prompt before the chat template, for servers that have their own.
    """

    row: str
    draw: int
    prompt: list[int]
    seed: int
    held: dict[str, Any] | None = None
    messages: list[Message] | None = None


@dataclass(frozen=True)
class Draw:
    """One answer; `token_ids` end with the stop token or string that `text` lacks.

    They are None where a server tells no ids; `counted` is then how many tokens it says there were.
    """

    text: str
    token_ids: list[int] | None
    finish_reason: Finish
    logprob: float | None = None  # mean over all tokens, only where it was asked for
    counted: int | None = None

    @property
    def record(self) -> dict[str, Any]:
        """What is kept and published of it: no `logprob` unless it was asked for."""
        kept: dict[str, Any] = {
            "text": self.text,
            "token_ids": self.token_ids,
            "finish_reason": self.finish_reason,
        }
        if self.token_ids is None:
            kept["tokens"] = self.counted
        return kept if self.logprob is None else kept | {"logprob": self.logprob}

    @property
    def tokens(self) -> int | None:
        """Its length in tokens, the stop token included; None where nobody tells."""
        return self.counted if self.token_ids is None else len(self.token_ids)


def mean_logprob(total: float, tokens: int) -> float:
    """Mean log-probability of a draw's tokens, to 4 places: kernels agree on no more of them."""
    return round(total / max(tokens, 1), LOGPROB_PLACES) + 0.0  # no -0.0


def require_vllm() -> None:
    """Look for vLLM without importing it.

    Raises:
        BuildError: It is not installed; nothing else can take its place.
    """
    if importlib.util.find_spec("vllm") is None:
        raise BuildError("vLLM is not installed; predictions need it: pip install '.[cpu]' or '.[gpu]'")


def seed_of(seed: int, row: str, draw: int) -> int:
    """The seed of a draw: 62 bits of blake2b over the recipe's seed and the row's id, plus the draw's number.

    Hence `n: 3 -> 5` keeps the first three, and a draw depends neither on the order of the rows nor on
    what else is in the batch.
    """
    digest = hashlib.blake2b(f"{seed}\n{row}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % SEEDS + draw


class Engine:
    """One model, ready to answer."""

    def __init__(self, setup: Setup):
        """Load the model.

        Raises:
            BuildError: vLLM is not installed, finds no device, or refuses the model or the limits.
        """
        require_vllm()
        self._setup, self._engine = setup, start(setup)
        self.draws_at_once: int = self._engine.vllm_config.scheduler_config.max_num_seqs
        self.generated_tokens = 0
        self._lora = _lora(setup)

    @property
    def in_flight(self) -> int:
        """Questions handed to vLLM at a time: twice what it draws at once, so that its batch stays full."""
        return 2 * self.draws_at_once

    def answer(
        self, questions: Iterable[Question], sampling: Sampling, stop_token_ids: list[int]
    ) -> Iterator[list[tuple[Question, Draw]]]:
        """Answer all questions, a bounded number at a time.

        Yields:
            After each step the draws that it finished, most often none.
        """
        self._held = sampling.constraint is not None
        waiting, running = iter(questions), dict[str, Question]()
        if self._lora and (first := next(waiting, None)):
            self._canary(first)
            waiting = chain([first], waiting)
        while True:
            for question in islice(waiting, self.in_flight - len(running)):
                name = f"{question.draw} {question.row}"
                self._ask(name, question, sampling, stop_token_ids)
                running[name] = question
            if not running:
                return
            outputs = [output for output in self._engine.step() if output.finished]
            yield [(running.pop(output.request_id), self._draw(output)) for output in outputs]

    def _ask(self, name: str, question: Question, sampling: Sampling, stop_token_ids: list[int]) -> None:
        from vllm.exceptions import VLLMValidationError
        from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

        params = SamplingParams(
            n=1,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k or 0,  # 0: all
            repetition_penalty=sampling.repetition_penalty,
            max_tokens=sampling.max_tokens,
            stop=list(sampling.stop) or None,
            stop_token_ids=stop_token_ids,
            seed=question.seed if sampling.temperature else None,
            logprobs=0 if sampling.logprobs else None,  # 0: of the drawn token alone
            structured_outputs=StructuredOutputsParams(**question.held) if question.held else None,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        try:
            self._add(name, question.prompt, params, self._lora)
        except (ValueError, VLLMValidationError) as error:  # no grammar can be made of the constraint
            reason = " ".join(str(error).split())
            raise BuildError(
                f"sampling.constraint: row {question.row!r}: vLLM refuses it: {reason}"
            ) from None

    def _add(self, name: str, prompt: list[int], params: Any, lora: Any) -> None:
        from vllm.inputs import TokensPrompt

        self._engine.add_request(name, TokensPrompt(prompt_token_ids=prompt), params, lora_request=lora)

    def _canary(self, question: Question) -> None:
        """Ask once with the adapter and once without: vLLM serves the bare base when names do not match."""
        if self._first_token(question, None) == self._first_token(question, self._lora):
            raise BuildError(
                f"{self._setup.adapter}: in vLLM the adapter changes nothing of what the base answers; use "
                "`weights: merged`, or train longer"
            )

    def _first_token(self, question: Question, lora: Any) -> dict[int, float]:
        """The likeliest first tokens of an answer, id -> log-probability: all logits have a part in each."""
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        params = SamplingParams(
            max_tokens=1, temperature=0, logprobs=PROBED, output_kind=RequestOutputKind.FINAL_ONLY
        )
        self._add("tuned" if lora else "untuned", question.prompt, params, lora)
        while True:
            for output in self._engine.step():
                if output.finished:
                    (found,) = output.outputs[0].logprobs or []
                    return {token: chosen.logprob for token, chosen in found.items()}

    def _draw(self, output: Any) -> Draw:
        (completion,) = output.outputs
        reason = completion.finish_reason
        if reason == "error" and self._held:
            row = output.request_id.partition(" ")[2]
            raise BuildError(
                f"sampling.constraint: row {row!r}: the model's tokens cannot write such an answer"
            )
        if reason not in ("stop", "length"):
            raise RuntimeError(f"vLLM ended a draw by {reason!r}")
        self.generated_tokens += len(completion.token_ids)
        ids, total = list(completion.token_ids), completion.cumulative_logprob
        return Draw(completion.text, ids, reason, None if total is None else mean_logprob(total, len(ids)))

    def close(self) -> None:
        """End the worker processes of tensor parallelism; without any the 1.4 s of a shutdown are saved."""
        if self._setup.gpus > 1:
            self._engine.engine_core.shutdown()


def _lora(setup: Setup) -> Any:
    """vLLM's name for the adapter, or None."""
    if setup.adapter is None:
        return None
    from vllm.lora.request import LoRARequest

    return LoRARequest("adapter", 1, str(setup.adapter))
