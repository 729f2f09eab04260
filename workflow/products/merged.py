"""The product ``merged``: a base model with an adapter merged into its weights, tensor by tensor.

Each output tensor has the bytes that PEFT's ``merge_and_unload`` followed by ``save_pretrained`` gives
(PEFT 0.21.2, on the CPU, adapter loaded by ``PeftModel.from_pretrained``), at the memory of one tensor.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from workflow import checkpoint
from workflow.card import write_merged_card
from workflow.checkpoint import Edit, Tensor, WeightFile
from workflow.errors import BuildError
from workflow.lora import add, changes, check_architecture, check_config, replace
from workflow.progress import Progress, say
from workflow.store.build import Job

MB = 1_000_000
Report = Callable[[int, int], None]
ADAPTER = "adapter_model.safetensors"


def make(job: Job) -> dict[str, Any]:
    """Merge, or link the whole model that full fine-tuning made; see `merge` for counts and errors."""
    counts = _merged(job)
    write_merged_card(job)
    return counts


def _merged(job: Job) -> dict[str, Any]:
    adapter = job.inputs["adapter"]
    if job.slice["method"] == "full":
        return link_model(adapter, job.out)
    progress: list[Progress] = []

    def report(done: int, total: int) -> None:
        if not progress:
            progress.append(Progress("merged", total // MB, "MB"))
        progress[0].reached(done // MB)

    quantization = job.slice.get("quantization")
    if not quantization:
        return merge(job.inputs["model"], adapter, job.out, report)
    into = job.slice["merge_into"]
    say(f"merged: the adapter was trained on a {quantization['type']} base; it goes into the {into} weights")
    chosen = quantization if into == "dequantized" else None
    return {"base": into, **merge(job.inputs["model"], adapter, job.out, report, chosen)}


def merge(
    base: Path,
    adapter: Path,
    out: Path,
    report: Report | None = None,
    quantization: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write ``base`` with ``adapter`` merged in to the empty folder ``out``, in the base's file layout.

    Weight files in which nothing changes are hard-linked; configuration, tokenizer and chat template
    are the base's. ``report`` gets (bytes done, bytes in all), counting tensor bytes. With
    ``quantization`` (type, double) the base's linear weights are quantised and dequantised first: they
    become the weights that the adapter was trained on.

    Returns:
        Counts: tensors, merged_tensors (adapter added), replaced_tensors (modules_to_save and biases),
        changed_tensors (other bytes than before), dequantized_tensors, bytes, files, unchanged_files.

    Raises:
        BuildError: the adapter is of a kind not merged here, does not fit the base, changes nothing, or a
            file is broken.
    """
    files = checkpoint.weight_files(base)
    config = checkpoint.read_json(adapter / "adapter_config.json")
    check_config(config, adapter / "adapter_config.json")
    tensors = {name: tensor for file in files for name, tensor in file.tensors.items()}
    changed: set[str] = set()
    if config["peft_type"] == "LORA":
        edits, merged = _lora_edits(base, adapter, config, tensors, changed)
    else:
        from workflow.peft_layers import layer_edits

        edits, merged = layer_edits(base, adapter, tensors, changed)
    rough = _dequantizing(base, tensors, quantization) if quantization else {}
    edits |= {name: _both(edit, edits.get(name)) for name, edit in rough.items()}
    counts: dict[str, Any] = dict(_write_weights(files, edits, out, report))
    if not changed:
        raise BuildError(
            f"{adapter / ADAPTER}: merged, it leaves every weight of the base as it was: its update is zero "
            "or lost in rounding; train longer, or with a higher learning rate"
        )
    checkpoint.place_companions(base, out, shutil.copyfile)
    replaced = len(edits.keys() - merged - rough.keys())
    counts |= {"merged_tensors": len(merged), "replaced_tensors": replaced, "changed_tensors": len(changed)}
    if quantization:
        counts |= {"dequantized_tensors": len(rough), "base": f"dequantized {quantization['type']}"}
    return counts


def _lora_edits(
    base: Path, adapter: Path, config: dict[str, Any], tensors: dict[str, Tensor], changed: set[str]
) -> tuple[dict[str, Edit], set[str]]:
    """The edits of a LoRA adapter, and which of them merge factors; DoRA's are made by PEFT."""
    lora = checkpoint.read_weight_file(adapter / ADAPTER)
    pairs, saved = changes(config, lora, tensors)
    check_architecture(base / "config.json", config, [*pairs], [*saved], tensors)
    edits: dict[str, Edit] = {name: partial(add, lora.path, pair, changed) for name, pair in pairs.items()}
    if config.get("use_dora"):
        from workflow.peft_layers import layer_edits

        edits, _ = layer_edits(base, adapter, tensors, changed)
    edits |= {name: partial(replace, lora.path, new, tensors[name], changed) for name, new in saved.items()}
    return edits, set(pairs)


def _dequantizing(base: Path, tensors: dict[str, Tensor], quantization: dict[str, Any]) -> dict[str, Edit]:
    """Edits that round each quantised weight to what its quantised form stands for."""
    from workflow.quantized import quantized_modules, through_quantization

    names = [f"{module}.weight" for module in quantized_modules(base)]
    return {
        name: partial(through_quantization, tensors[name], quantization["type"], quantization["double"])
        for name in names
    }


def _both(first: Edit, then: Edit | None) -> Edit:
    """One edit after the other."""

    def edit(data: bytearray) -> None:
        first(data)
        if then is not None:
            then(data)

    return edit


def link_model(source: Path, out: Path) -> dict[str, int]:
    """Fill the empty folder ``out`` with hard links (or copies) of a whole model: ``method: full``.

    Returns the counts of `merge`; raises BuildError if ``source`` is no complete safetensors model.
    """
    checkpoint.read_json(source / "config.json")
    counts = _write_weights(checkpoint.weight_files(source), {}, out, None)
    checkpoint.place_companions(source, out, checkpoint.link_or_copy)
    return counts | {"merged_tensors": 0, "replaced_tensors": 0}


def _write_weights(
    files: list[WeightFile], edits: dict[str, Edit], out: Path, report: Report | None
) -> dict[str, int]:
    """Write each weight file, or link it when no edit touches it; return what was done in numbers."""
    done, total, unchanged = 0, sum(file.nbytes for file in files), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if report is not None:
            report(done, total)

    for file in files:
        if edits.keys() & file.tensors.keys():
            checkpoint.rewrite(file, out / file.path.name, edits, advance)
        else:
            checkpoint.link_or_copy(file.path, out / file.path.name)
            unchanged += 1
            advance(file.nbytes)
    tensors = sum(len(file.tensors) for file in files)
    return {"tensors": tensors, "bytes": total, "files": len(files), "unchanged_files": unchanged}
