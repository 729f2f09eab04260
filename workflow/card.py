"""The model card: `README.md` of an adapter and of a merged model, as the Hub reads it.

It holds what the plans behind the weights say and nothing that varies: no date, host, version or path. It
describes and is no content: no key depends on it (`workflow.store.records`).
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from workflow.store.build import Job
from workflow.store.records import DESCRIPTION
from workflow.tokens import read_rendering

MADE = "## How it was made"
METHODS = {"full": "full fine-tuning", "combined": "several adapters as one"}
LICENCE = "# license: yours to fill in; the licences of the base model and of the data apply"
PROMPT = ("chat_template", "max_length", "max_source_length", "max_target_length", "overflow", "train_on")
RELATION = {"peft": "adapter", "transformers": "finetune"}
"""Library -> how the Hub calls what was made of the base."""
WORTH = """\
## What it is worth

Scores are not known here: weights are made before they are measured. They are in `scores.json` and
`report.html` beside this folder in `results/`, with intervals and paired tests; copy them here before you
publish.
"""


def write_adapter_card(job: Job) -> None:
    """Write the card of trained weights, a whole model where every weight was trained."""
    method = str(job.slice["tuning"].get("method", "combined"))
    facts = [_of_base(job), _of_training(job.slice, method), _of_prompt(job), _of_data(job)]
    made = f"{MADE}\n\n" + "\n".join(fact for fact in facts if fact)
    _write(job, method, made, library="transformers" if method == "full" else "peft")


def write_merged_card(job: Job) -> None:
    """Write the card of a merged model: what its adapter's says of how it was made, and that it is merged."""
    card, method = (job.inputs["adapter"] / DESCRIPTION).read_text(encoding="utf-8"), str(job.slice["method"])
    made = card[card.index(MADE) : card.rindex(WORTH)]
    if method != "full":
        into = job.slice.get("merge_into") or "base's"
        made += f"The adapter is merged into the {into} weights, as PEFT's `merge_and_unload` does.\n\n"
    _write(job, method, made.rstrip("\n") + "\n", library="transformers")


def _write(job: Job, method: str, made: str, library: str) -> None:
    front = f"---\n{_metadata(_hub(job), method, library)}\n{LICENCE}\n---\n"
    text = f"{front}\n{_opening(library)}\n{made}\n{WORTH}"
    (job.out / DESCRIPTION).write_text(text, encoding="utf-8")


def _metadata(hub: tuple[str, str] | None, method: str, library: str) -> str:
    """The front matter. A base that no hub has is not named: the Hub takes only its own names."""
    from huggingface_hub import ModelCardData

    named = {"base_model": hub[0], "base_model_relation": RELATION[library]} if hub else {}
    tags = ["tunemake", "full-fine-tuning" if method == "full" else method]
    data = ModelCardData(library_name=library, pipeline_tag="text-generation", tags=tags, **named)
    return str(data.to_yaml())


def _hub(job: Job) -> tuple[str, str] | None:
    """Repository and commit of the model that all began with."""
    models = [
        step.plan.slice for steps in job.lineage.values() for step in steps if step.plan.product == "model"
    ]
    return next(((str(m["hub"]), str(m["revision"])) for m in models if "hub" in m), None)


def _opening(library: str) -> str:
    kind = "The weights of an adapter" if library == "peft" else "A whole model"
    load = (
        "`PeftModel.from_pretrained(base, folder)`"
        if library == "peft"
        else "`AutoModelForCausalLM.from_pretrained(folder)`, or vLLM with this folder"
    )
    return f"# Model card\n\n{kind}, made by tunemake from a recipe. Load it with {load}.\n"


def _of_base(job: Job) -> str:
    """The base model: its name and commit, or the digests of its files."""
    steps = [step.plan for step in job.lineage.get("model", ())]
    between = sum(plan.product == "adapter" for plan in steps)
    tuned = f", tuned {between} time{'s' * (between > 1)} before" if between else ""
    if hub := _hub(job):
        name, commit = hub
        link = f"[{name}](https://huggingface.co/{name}/tree/{commit})"
        return f"Base model: {link}, commit `{commit}`{tuned}.\n"
    models = [plan for plan in steps if plan.product == "model"]
    kind = "a tiny stand-in with random weights" if any("stand_in" in m.slice for m in models) else "no hub's"
    files = {name: digest for plan in models for name, digest in plan.sources.items()}
    return f"Base model: {kind}{tuned}; its files by SHA-256:\n\n{_block(files)}"


def _of_training(asked: dict[str, Any], method: str) -> str:
    """All that decided the weights besides data and base, in the recipe's own words."""
    kept = {name: asked[name] for name in ("tuning", "training", "deepspeed", "model") if asked.get(name)}
    what = METHODS.get(method, method)
    return f"Method: {what}. All that decided the weights besides, in the recipe's words:\n\n{_block(kept)}"


def _of_prompt(job: Job) -> str:
    """How rows became text: digest of the template, limits, what ends an answer."""
    if "shards" not in job.inputs:
        return ""
    ends = read_rendering(job.inputs["shards"])
    facts: dict[str, Any] = {"stop_token_ids": ends.stop_token_ids} | (
        {"stop": ends.stop} if ends.stop else {}
    )
    for step in job.lineage.get("shards", ())[-1:]:
        facts["template_sha256"] = step.plan.sources.get("template")
        facts |= {name: step.plan.slice[name] for name in PROMPT if step.plan.slice.get(name) is not None}
    return f"Prompt: its template by SHA-256, and what ends an answer.\n\n{_block(facts)}"


def _of_data(job: Job) -> str:
    """Where the rows came from, by digest or commit."""
    plans = [step.plan for step in job.lineage.get("shards", ()) if step.plan.product == "rows"]
    rows = [{**plan.slice, "sha256": plan.sources} for plan in plans]
    named = [{name: row[name] for name in ("path", "format", "sha256") if row.get(name)} for row in rows]
    return (
        f"Training data, by commit or by the SHA-256 of its files:\n\n{_block({'data': named})}"
        if rows
        else ""
    )


def _block(facts: dict[str, Any]) -> str:
    """Facts as YAML in a fence that nothing in them can end."""
    text = yaml.safe_dump(facts, allow_unicode=True, sort_keys=True, width=100)
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}yaml\n{text}{fence}\n"
