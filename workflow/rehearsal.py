"""A rehearsal: a recipe made small, to prove its graph on any machine before a GPU is booked.

A function from recipe to recipe, which reads nothing but which files are there; what it gives is built as
any other recipe is. Data format, steps, prompt template, tuning method, DeepSpeed stage, sampling and voting
stay; model, rows, steps and answers become small. docs/recipes.md says what is changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from workflow.devices import visible_gpus
from workflow.errors import BuildError
from workflow.models import TOKENIZER
from workflow.recipe import Recipe
from workflow.recipe.model import UNPINNED

REHEARSAL = "rehearsal/"
"""Before the name of a recipe: its rehearsal."""
FAMILIES = {
    r"qwen3(?!.*-a\d+b)(?!.*(next|vl|omni|coder-480))": "qwen3",
    r"qwen(1\.5|2|2\.5)-(?!vl|audio)": "qwen2",
    r"glm-(4|z1)-\d+b.*-0414": "glm4",
    r"glm-4-9b.*-hf": "glm",
    r"llama-?[23]|tinyllama|vicuna": "llama",
    r"mistral": "mistral",
}
"""What the name of a hub model tells of its family, where its files are not at hand."""
ROWS = {"train": 64, "test": 8, "validation": 8}
SHARE = 0.25
"""Of few rows, the share that is tested on at least."""
BATCH, STEPS, DRAWS, TOKENS = 8, 4, 3, 8
STAND_INS = "rehearsal"
"""Folder beside a recipe's data that holds some rows of the same format, under the same names."""
STRETCH = 6
"""Tokens of a stand-in's tokenizer, at most, for one of a real one: its tokens are bytes."""

Told = dict[str, Any]


def rehearsed(recipe: Recipe, path: Path) -> Recipe:
    """The rehearsal of the recipe in the file `path`.

    Raises:
        BuildError: There are neither its rows nor others in their place, or the family of its model is not
            known.
    """
    told = recipe.model_dump(mode="json", exclude_unset=True)
    folder = path.parent
    told["model"], bytes_only = _model(told["model"], folder)
    others = [_stand_in_rows(place, source, folder) for place, source in _sources(told["dataset"])]
    told["prompt"] = _prompt(told["prompt"], bytes_only)
    if bytes_only or any(others):
        told.pop("gate", None)  # it is about the recipe's own rows and tokens
    if "split" in told["dataset"]:
        split = told["dataset"]["split"]
        split["test"] = max(SHARE, split.get("test") or 0)
        split.pop("test_rows", None)
    if "tuning" in told:
        _tuning(told["tuning"])
    if told.get("voting"):
        _voting(told["voting"])
    _shorten(told)
    try:
        return Recipe.model_validate(told)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise BuildError(f"its rehearsal would be no recipe: {place}: {first['msg']}") from None


def _model(model: Told, folder: Path) -> tuple[Told, bool]:
    """The tiny model, and whether its tokens may be bytes."""
    base = model["base"]
    if isinstance(base, dict) and "recipe" in base:
        return model | {"base": {"recipe": REHEARSAL + base["recipe"]}}, True
    if isinstance(base, dict) and "stand_in" in base:
        return model, "family" in base["stand_in"]
    revision = model.pop("revision", None)
    if revision is None:
        like = base["scratch"] if isinstance(base, dict) else base
    else:
        like = _fetched(base, revision)
    chosen = {"like": like} if like else {"family": _family(base)}
    return model | {"base": {"stand_in": chosen}}, like is None


def _fetched(repository: str, revision: str) -> str | None:
    """The folder in the hub's cache with a model's configuration and tokenizer, if both are there."""
    from huggingface_hub import try_to_load_from_cache

    commit = "main" if revision == UNPINNED else revision
    found = {name: try_to_load_from_cache(repository, name, revision=commit) for name in TOKENIZER}
    there = {name for name, path in found.items() if isinstance(path, str)}
    if "config.json" not in there or not {"tokenizer.json", "tokenizer.model"} & there:
        return None
    return str(Path(str(found["config.json"])).parent)


def _family(repository: str) -> str:
    for pattern, family in FAMILIES.items():
        if re.search(pattern, repository, re.IGNORECASE):
            return family
    raise BuildError(
        f"model.base: {repository} tells no family that a rehearsal knows; fetch its configuration and "
        f"tokenizer once: `hf download {repository} --include '*.json' 'tokenizer*'`"
    )


def _sources(dataset: Told) -> Iterator[tuple[str, Told]]:
    """Place and source of every source that is a file or a data set, with its sample made small."""
    for split in ROWS:
        source = dataset.get(split, {})
        for name, part in source.get("sources", {}).items():
            yield f"{split}.sources.{name}", _sampled(part, split)
        if source and "sources" not in source:
            yield split, _sampled(source, split)


def _sampled(source: Told, split: str) -> Told:
    told = source.get("sample", {})
    kept = {name: told[name] for name in ("seed", "deduplicate") if name in told}
    source["sample"] = kept | {"n": min(ROWS[split], told.get("n") or ROWS[split])}
    return source


def _stand_in_rows(place: str, source: Told, folder: Path) -> bool:
    """Take rows of the same format where the recipe's own are not there; whether that was so."""
    path = source["path"]
    if isinstance(path, dict):
        own, other = Path(path["hub"]), Path("data") / STAND_INS / path["hub"]
        if path.get("revision") is None and (folder / own).is_dir():
            return False
    else:
        own, other = Path(path), Path(path).parent / STAND_INS / Path(path).name
        if (folder / own).is_file():
            return False
    if not (folder / other).exists():
        raise BuildError(
            f"dataset.{place}: neither {folder / own} is there nor {folder / other}; put some rows of the "
            "same format there, under that name"
        )
    source.pop("sha256", None)
    source["path"] = str(other)
    if isinstance(path, dict):
        named = {name: value for name, value in path.items() if name in ("split", "config")}
        source["path"] = {"hub": str(other), **named}
    return True


def _prompt(prompt: Told, bytes_only: bool) -> Told:
    """The limits in tokens of the model that is rehearsed with."""
    if not bytes_only:
        return prompt
    limits = ("max_length", "max_source_length", "max_target_length")
    longer = {name: STRETCH * prompt[name] for name in limits if isinstance(prompt.get(name), int)}
    return prompt | longer


def _shorten(told: Told) -> None:
    """Few steps, few and short answers, on two processes where DeepSpeed is used."""
    processes = min(2, len(visible_gpus()) or 2) if told.get("deepspeed") else 1
    execution = told.get("execution", {})
    kept = {name: value for name, value in execution.items() if name == "gradient_checkpointing"}
    told["execution"] = kept | {"processes": processes, "micro_batch": 1, "save_steps": 2}
    if told["model"]["dtype"] == "float16":
        told["model"]["dtype"] = "bfloat16"  # a CPU has no kernels for the other
    if "training" in told:
        _shorten_training(told["training"], processes)
    if deepspeed := told.get("deepspeed"):
        deepspeed.pop("config", None)  # it may name the very batch
        for name in ("offload_optimizer", "offload_parameters"):
            if deepspeed.get(name):
                deepspeed[name] = "cpu"
    if sampling := told.get("sampling"):
        if "engine" in sampling:
            sampling["engine"] = _engine(sampling["engine"])
        sampling["n"] = min(DRAWS, sampling["n"])
        sampling["max_tokens"] = min(TOKENS, sampling["max_tokens"])
    if scoring := told.get("scoring"):
        scoring["resamples"] = 100
    if serving := told.get("serving"):
        serving |= {"max_tokens": TOKENS, "canary": False}  # random weights know no name
        for question in serving["questions"]:
            question.pop("expect", None)


def _engine(engine: Any) -> Any:
    """Nobody else is asked, and no weights are quantised, which takes a GPU."""
    if isinstance(engine, str):
        return engine
    kept = {name: value for name, value in engine.items() if name != "quantization"}
    return "vllm" if engine["name"] == "endpoint" else kept


def _shorten_training(training: Told, processes: int) -> None:
    training.pop("epochs", None)
    batch = min(BATCH, training["batch_size"])
    batch = max(batch - batch % processes, processes)
    training |= {"max_steps": STEPS, "batch_size": batch, "log_steps": 1}
    schedule = training.get("lr_scheduler")
    if isinstance(schedule, dict) and schedule.get("warmup_steps"):
        schedule["warmup_steps"] = 1
    if validation := training.get("validation"):
        validation.pop("every_epochs", None)
        validation["every_steps"] = 2
        if validation.get("rows"):
            validation["rows"] = min(BATCH, validation["rows"])


def _voting(voting: Told) -> None:
    """The same voters, as their rehearsals."""
    members: list[str] = voting.get("members", [])
    voting["members"] = [REHEARSAL + name for name in members]
    if isinstance(voting.get("weights"), dict):
        voting["weights"] = {
            (REHEARSAL if voter.partition("/")[0] in members else "") + voter: weight
            for voter, weight in voting["weights"].items()
        }


def _tuning(tuning: Told) -> None:
    """The method, started from the rehearsals of the recipes that it starts from, on the layers there are."""
    start = tuning.get("initialise") or {}
    if "recipe" in start:
        start["recipe"] = REHEARSAL + start["recipe"]
    for combination in (tuning, start):
        if "of" in combination:
            combination["of"] = {REHEARSAL + name: weight for name, weight in combination["of"].items()}
    if tuning.get("layers_to_transform"):
        tuning["layers_to_transform"] = [0]
