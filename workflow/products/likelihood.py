"""The product `likelihood`: how likely a model finds the known answer of every test row.

`likelihood.jsonl` has one line per row, in the order of the shards (sorted by id):
`{"id", "tokens", "loss"}`: the tokens that training would count (answer and stop token), and the sum of their
negative log-likelihoods in nats. Rows that the recipe's limits drop from training are left out here too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from workflow.errors import BuildError
from workflow.progress import Progress
from workflow.results import LIKELIHOOD
from workflow.store.address import canonical
from workflow.store.build import Job
from workflow.tokens import TokenRow, read_rows
from workflow.vllm_start import dtype_of


def make(job: Job) -> dict[str, Any]:
    """Write `likelihood.jsonl`, one forward pass per row: what is found depends on no other row.

    Returns:
        Counts: rows, tokens, loss (mean per token).

    Raises:
        BuildError: The model or its adapter cannot be loaded, or a loss is not finite.
    """
    rows = list(read_rows(job.inputs["shards"]))
    model = loaded(job.inputs["model"], job.inputs.get("adapter"), job.resources.threads)
    progress, tokens, total = Progress("likelihood", len(rows), "rows"), 0, 0.0
    with (job.out / LIKELIHOOD).open("wb") as file:
        for number, row in enumerate(rows, start=1):
            loss, count = row_loss(model, row), int(row.trained[1:].sum())
            if not np.isfinite(loss):
                raise BuildError(f"row {row.id!r}: the loss of its answer is {loss}; the model is damaged")
            file.write(canonical({"id": row.id, "tokens": count, "loss": round(loss, 6)}) + b"\n")
            tokens, total = tokens + count, total + loss
            progress.reached(number)
    return {"rows": len(rows), "tokens": tokens, "loss": round(total / max(tokens, 1), 6)}


def row_loss(model: Any, row: TokenRow) -> float:
    """Sum of the negative log-likelihoods of a row's trained tokens, in nats, by float32 softmax."""
    import torch

    ids = torch.from_numpy(row.input_ids.astype(np.int64)).to(model.device)
    places = torch.from_numpy(np.flatnonzero(row.trained[1:])).to(model.device)  # that predict the next token
    with torch.inference_mode():
        logits = model(input_ids=ids[None]).logits[0]
        logits = logits[-len(ids) :][places].float()  # a trained prompt has logits of its own, before
        losses = torch.nn.functional.cross_entropy(logits, ids[places + 1], reduction="none")
    return float(losses.double().sum())


def loaded(model: Path, adapter: Path | None, threads: int) -> Any:
    """A model, and a trained prompt with it if there is one, ready for forward passes.

    Raises:
        BuildError: transformers or PEFT refuses them.
    """
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, dtype_of(model))
    try:
        found: Any = AutoModelForCausalLM.from_pretrained(
            model, dtype=dtype, trust_remote_code=False, use_safetensors=True
        )
        if adapter:
            from peft import PeftModel

            found = PeftModel.from_pretrained(found, str(adapter))
    except (ValueError, OSError, RuntimeError) as error:
        raise BuildError(f"{adapter or model}: cannot be loaded ({' '.join(str(error).split())})") from None
    found.config.use_cache = False
    return found.to(device).eval()
