"""Draws by transformers' own `generate`: for what vLLM cannot serve, and to compare its tokens with.

One draw at a time, from its own seed: what is drawn depends on nothing else, as with vLLM, and takes long.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from workflow.engine import Draw, Question, mean_logprob
from workflow.errors import BuildError
from workflow.recipe.answers import Sampling
from workflow.vllm_start import dtype_of


class TransformersEngine:
    """One model, and an adapter on top of it if there is one, ready to answer."""

    def __init__(self, model: Path, adapter: Path | None, threads: int):
        """Load both.

        Raises:
            BuildError: transformers or PEFT refuses them.
        """
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(threads)
        self.generated_tokens = 0
        device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                model, dtype=getattr(torch, dtype_of(model)), trust_remote_code=False, use_safetensors=True
            )
            self._tokenizer: Any = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
            if adapter:
                from peft import PeftModel

                loaded = PeftModel.from_pretrained(loaded, str(adapter))
        except (ValueError, OSError, RuntimeError) as error:
            raise BuildError(
                f"{adapter or model}: cannot be loaded ({' '.join(str(error).split())})"
            ) from None
        self._model = loaded.to(device).eval()
        self._model.generation_config = type(self._model.generation_config)()  # nothing but what is asked

    def answer(
        self, questions: Iterable[Question], sampling: Sampling, stop_token_ids: list[int]
    ) -> Iterator[list[tuple[Question, Draw]]]:
        """Answer all questions; each step yields one draw."""
        for question in questions:
            yield [(question, self._draw(question, sampling, stop_token_ids))]

    def _draw(self, question: Question, sampling: Sampling, stop_token_ids: list[int]) -> Draw:
        import torch

        torch.manual_seed(question.seed)
        prompt = torch.tensor([question.prompt], device=self._model.device)
        with torch.inference_mode():
            found = self._model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=sampling.max_tokens,
                eos_token_id=stop_token_ids,
                pad_token_id=stop_token_ids[0],
                repetition_penalty=sampling.repetition_penalty,
                return_dict_in_generate=True,
                output_logits=sampling.logprobs,
                **_drawing(sampling),
                **({"stop_strings": sampling.stop, "tokenizer": self._tokenizer} if sampling.stop else {}),
            )
        ids = found.sequences[0, prompt.shape[1] :].tolist()
        self.generated_tokens += len(ids)
        draw = self._ended(ids, sampling, stop_token_ids)
        return replace(draw, logprob=_logprob(found.logits, ids)) if sampling.logprobs else draw

    def _ended(self, ids: list[int], sampling: Sampling, stop_token_ids: list[int]) -> Draw:
        """The text up to where it was stopped."""
        stopped = bool(ids) and ids[-1] in stop_token_ids
        text = self._tokenizer.decode(
            ids[:-1] if stopped else ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        places = [place for stop in sampling.stop if (place := text.find(stop)) >= 0]
        if places:
            return Draw(text[: min(places)], ids, "stop")
        return Draw(text, ids, "stop" if stopped else "length")

    def close(self) -> None:
        """Nothing outlives this process."""


def _logprob(logits: Any, ids: list[int]) -> float:
    """Mean log-probability of the drawn tokens under the raw logits, one [1, vocabulary] for each."""
    import torch

    steps = torch.cat(logits).float().log_softmax(-1)
    return mean_logprob(float(steps[range(len(ids)), ids].sum()), len(ids))


def _drawing(sampling: Sampling) -> dict[str, Any]:
    if not sampling.temperature:
        return {"do_sample": False}
    limits = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k or 0}
    return {"do_sample": True, **limits}
