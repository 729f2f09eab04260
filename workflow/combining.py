"""Several adapters as one, by PEFT's `add_weighted_adapter`; the base's weights are not needed for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from workflow.checkpoint import read_json
from workflow.errors import BuildError
from workflow.progress import say
from workflow.recipe.tuning import ROLE
from workflow.store.build import Job


def combine(job: Job) -> dict[str, Any]:
    """Write the weighted combination of the input adapters.

    Returns:
        Counts: adapters, and the rank of the result.

    Raises:
        BuildError: An adapter has more than plain factors, or ranks differ where they may not.
    """
    import torch

    from workflow.skeleton import with_adapters
    from workflow.training.model import save_adapter

    tuning = job.slice["tuning"]
    wanted = tuning.get("initialise", tuning)
    folders = {name: job.inputs[ROLE + name] for name in sorted(wanted["of"])}
    _check(folders, wanted["combination"])
    names = {f"adapter_{i}": folder for i, folder in enumerate(folders.values())}  # PEFT: no dots in names
    model = with_adapters(job.inputs["model"], names)
    first = next(iter(names))
    # The scaling of each is in its weights by now; of a stabilised first one, the result would have it again.
    model.peft_config[first] = replace(model.peft_config[first], use_rslora=False)
    density = {} if wanted["density"] is None else {"density": wanted["density"]}
    weights = [wanted["of"][name] for name in folders]
    torch.manual_seed(wanted["seed"])
    model.add_weighted_adapter(list(names), weights, "combined", wanted["combination"], **density)
    save_adapter(model, None, job.out, "combined")
    say(f"adapter: {len(folders)} adapters combined ({wanted['combination']}): {', '.join(folders)}")
    return {"adapters": len(folders), "rank": model.peft_config["combined"].r}


def _check(folders: dict[str, Path], combination: str) -> None:
    """Refuse what `add_weighted_adapter` would get wrong or drop without a word."""
    configs = {name: read_json(folder / "adapter_config.json") for name, folder in folders.items()}
    for name, config in configs.items():
        extra = [key for key in ("modules_to_save", "rank_pattern", "alpha_pattern") if config.get(key)]
        extra += ["bias"] if config.get("bias", "none") != "none" else []
        if extra:
            raise BuildError(f"the adapter of {name} has {extra[0]}; only plain factors can be combined")
    ranks = {name: config["r"] for name, config in configs.items()}
    if combination != "cat" and len(set(ranks.values())) > 1:
        shown = ", ".join(f"{name} {rank}" for name, rank in ranks.items())
        raise BuildError(f"combination {combination} needs adapters of one rank ({shown}); use cat")
