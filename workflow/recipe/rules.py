"""Sections that cannot go together, each with the sentence that says why and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from workflow.recipe.answers import OWN
from workflow.recipe.engines import Endpoint, Transformers, Vllm
from workflow.recipe.model import ScratchBase
from workflow.recipe.tuning import (
    Combined,
    Dora,
    Factors,
    Full,
    Ia3,
    Pissa,
    PrefixTuning,
    Prompt,
    Qlora,
)

MOST_RANK = 512
"""Highest rank of an adapter that vLLM serves."""

if TYPE_CHECKING:
    from workflow.recipe.recipe import Recipe


def training_is_whole(recipe: Recipe) -> str | None:
    """Tuning, training and training rows belong together, save where nothing is trained."""
    shown = recipe.prompt.examples and not recipe.training  # training rows may be there to be shown only
    rows = None if shown else recipe.dataset.train
    parts: dict[str, object] = {"training": recipe.training, "dataset.train": rows}
    if isinstance(recipe.tuning, Combined):
        given = [name for name, part in {**parts, "deepspeed": recipe.deepspeed}.items() if part]
        return f"tuning.method combined trains nothing: drop {', '.join(given)}" if given else None
    parts = {"tuning": recipe.tuning, **parts}
    missing = [name for name, part in parts.items() if part is None]
    if missing and len(missing) < len(parts):
        return f"training needs {', '.join(parts)}; missing: {', '.join(missing)}"
    return None


def scratch_is_trained_in_full(recipe: Recipe) -> str | None:
    """A new model has neither weights to adapt nor answers to compare with."""
    if not isinstance(recipe.model.base, ScratchBase):
        return None
    if not isinstance(recipe.tuning, Full):
        return "a model from scratch has nothing to adapt: use `tuning.method: full`"
    if recipe.scoring and "base" in recipe.scoring.compare:
        return "a model from scratch has no base to compare with: drop scoring.compare"
    return None


def stage_3_can_train_it(recipe: Recipe) -> str | None:
    """ZeRO-3 keeps no weight whole, and some methods need whole ones."""
    if not recipe.deepspeed or recipe.deepspeed.zero_stage != 3:
        return None
    tuning = recipe.tuning
    reasons = {
        "quantised weights cannot be sharded": isinstance(tuning, Qlora),
        "modules_to_save are copied before ZeRO-3 has whole weights": isinstance(tuning, Factors)
        and bool(tuning.modules_to_save),
        "PiSSA decomposes whole weights": isinstance(tuning, Pissa),
        "trained prompts are computed from whole embeddings": isinstance(tuning, Prompt),
    }
    broken = [why for why, true in reasons.items() if true]
    return f"deepspeed.zero_stage: {broken[0]}; use 0, 1 or 2" if broken else None


def what_is_served_is_a_model(recipe: Recipe) -> str | None:
    """vLLM would serve the untrained model in its place."""
    if recipe.serving and isinstance(recipe.tuning, Prompt):
        return (
            f"serving: {recipe.tuning.method} changes no weight, and vLLM serves no trained prompt; drop it"
        )
    return None


def prompts_stay_beside_the_model(recipe: Recipe) -> str | None:
    """A trained prompt changes no weight: nothing to merge, and vLLM loads no such adapter."""
    tuning = recipe.tuning
    if not isinstance(tuning, Prompt):
        return None
    if recipe.sampling and recipe.sampling.engine.name == "vllm":
        return (
            f"{tuning.method} has nothing to merge and vLLM cannot load it: "
            "set sampling.engine to transformers"
        )
    if recipe.training and recipe.training.packing:
        return f"{tuning.method} puts its prompt before a sequence, not before each row in it: drop packing"
    if isinstance(tuning, PrefixTuning) and recipe.execution.gradient_checkpointing:
        return (
            "prefix_tuning puts its prefix where recomputed activations do not see it: "
            "set execution.gradient_checkpointing to false"
        )
    return None


def adapter_can_answer(recipe: Recipe) -> str | None:
    """Base and adapter side by side: what vLLM, or PEFT, can serve so."""
    engine, tuning = recipe.sampling and recipe.sampling.engine, recipe.tuning
    if not isinstance(engine, Vllm | Transformers) or engine.weights == "merged":
        return None
    if tuning is None or isinstance(tuning, Full):
        return "sampling.engine.weights: adapter needs a tuning.method that trains one"
    if isinstance(engine, Transformers) or isinstance(tuning, Prompt | Combined):
        return None
    reasons = {
        f"{tuning.method}": isinstance(tuning, Ia3 | Dora),
        "modules_to_save": bool(getattr(tuning, "modules_to_save", None)),
        "trained biases": getattr(tuning, "bias", "none") != "none",
        f"ranks above {MOST_RANK}": getattr(tuning, "r", 0) > MOST_RANK,
    }
    broken = [why for why, true in reasons.items() if true]
    return f"vLLM serves no adapter with {broken[0]}: use `weights: merged`" if broken else None


def an_endpoint_answers_by_itself(recipe: Recipe) -> str | None:
    """Nothing that is trained here is in what an endpoint answers."""
    engine = recipe.sampling and recipe.sampling.engine
    if not isinstance(engine, Endpoint):
        return None
    if recipe.tuning:
        return "an endpoint does not answer with what is trained here: give it a recipe without tuning"
    if recipe.scoring and "perplexity" in recipe.scoring.metrics:
        return "perplexity is of a model's weights, which an endpoint does not show: take it out of scoring"
    if engine.api == "chat" and recipe.prompt.chat_template == "plain":
        return "`api: chat` sends messages, `chat_template: plain` makes none: use `api: completions`"
    return None


def engine_fits(recipe: Recipe) -> str | None:
    """What DeepSpeed and the optimizer both want to do."""
    if not recipe.deepspeed:
        return None
    if not recipe.training:
        return "deepspeed is for training: add `training` or drop it"
    optimizer, stage = recipe.training.optimizer.name, recipe.deepspeed.zero_stage
    if optimizer == "adafactor" and stage:
        return "adafactor needs whole matrices, ZeRO cuts them up: use zero_stage 0 or adamw"
    if optimizer == "paged_adamw_8bit" and recipe.deepspeed.offload_optimizer:
        return "paged_adamw_8bit moves its state itself: drop offload_optimizer or use adamw"
    if recipe.deepspeed.uses_disk and not recipe.execution.nvme_path:
        return "offloading to nvme needs `execution.nvme_path`, a folder on that disk"
    return None


def rows_fit_a_pack(recipe: Recipe) -> str | None:
    """A packed sequence holds the longest row that the limits allow."""
    packing = recipe.training.packing if recipe.training else None
    if not packing:
        return None
    prompt = recipe.prompt
    longest = prompt.max_length or (prompt.max_source_length or 0) + (prompt.max_target_length or 0)
    if longest == "model":
        return "training.packing needs prompt.max_length as a number, to compare with its length"
    if packing.length < longest:
        return (
            f"training.packing.length {packing.length} is less than the {longest} tokens that section "
            f"prompt allows a row: use {longest} or more"
        )
    return None


def voters_are_there(recipe: Recipe) -> str | None:
    """Whoever votes has drawn, and is weighed by what is there."""
    voting, sampling, prompt = recipe.voting, recipe.sampling, recipe.prompt
    if not voting:
        return "prompt.variants are voters: add the section voting" if prompt.variants else None
    if not sampling:
        return "voting is on draws: add the section sampling"
    if voting.weights == "accuracy" and not recipe.dataset.validation:
        return "`voting.weights: accuracy` needs dataset.validation, rows with known answers"
    if recipe.dataset.validation and voting.weights != "accuracy":
        return "dataset.validation is for `voting.weights: accuracy`, and for nothing else so far"
    if voting.weights == "logprob" and not sampling.logprobs:
        return "`voting.weights: logprob` goes by what the engine records: set `sampling.logprobs: true`"
    if both := set(voting.members) & {OWN, *prompt.variants}:
        return f"voting.members: {min(both)} is also the name of a variant; rename one"
    return None


def examples_are_of_training(recipe: Recipe) -> str | None:
    """Examples come from the training rows alone."""
    if recipe.prompt.examples and not recipe.dataset.train:
        return "prompt.examples are training rows: add dataset.train"
    return None


RULES: tuple[Callable[[Recipe], str | None], ...] = (
    training_is_whole,
    scratch_is_trained_in_full,
    stage_3_can_train_it,
    what_is_served_is_a_model,
    prompts_stay_beside_the_model,
    adapter_can_answer,
    an_endpoint_answers_by_itself,
    engine_fits,
    rows_fit_a_pack,
    voters_are_there,
    examples_are_of_training,
)


def broken(recipe: Recipe) -> Iterator[str]:
    """What is wrong with a recipe as a whole."""
    yield from (why for rule in RULES if (why := rule(recipe)))
