"""The product ``merged``: a base model with a LoRA adapter added into its weights, tensor by tensor.

Each output tensor has the bytes that PEFT's ``merge_and_unload`` followed by ``save_pretrained`` gives
(PEFT 0.21.2, on the CPU, adapter loaded by ``PeftModel.from_pretrained``), at the memory of one tensor.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflow import checkpoint
from workflow.checkpoint import Edit, Tensor, WeightFile, naming
from workflow.errors import BuildError
from workflow.lora import Config, rank_and_scaling
from workflow.progress import Progress
from workflow.store.build import Job

if TYPE_CHECKING:
    import torch

MB = 1_000_000
Report = Callable[[int, int], None]
Tensors = dict[str, Tensor]
PREFIX = "base_model.model."  # PEFT's name for the wrapped model
FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
GRAIN = 1 << 15  # elements added at a time: they stay in the cache, and torch gives them to one thread

# What an adapter_config.json may set without changing the arithmetic here, or by way of it. Any other
# key with a value is refused: PEFT grows new LoRA variants with nearly every release.
KNOWN = (
    "alpha_pattern auto_mapping base_model_name_or_path bias exclude_modules inference_mode "
    "init_lora_weights layers_pattern layers_to_transform lora_alpha lora_dropout megatron_core "
    "modules_to_save peft_type peft_version qalora_group_size r rank_pattern revision target_modules "
    "task_type use_rslora"
)
REASONS = {
    "use_dora": "DoRA is not merged yet (a later issue does it); train with use_dora: false",
    "lora_bias": "biases of LoRA layers are not merged; train with lora_bias: false",
    "fan_in_fan_out": "transposed weights (Conv1D, as in GPT-2) are not merged",
    "trainable_token_indices": "trained token rows are not merged; use modules_to_save",
    "target_parameters": "LoRA on bare parameters (fused experts) is not merged; target Linear layers",
    "layer_replication": "replicated layers change the model's shape",
}
TIED = re.compile(r"(^|\.)(lm_head|embed_tokens)\.weight$")
CONV1D_MODELS = frozenset({"gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp"})


def make(job: Job) -> dict[str, Any]:
    """Merge, or link the whole model that full fine-tuning made; see `merge` for counts and errors."""
    adapter = job.inputs["adapter"]
    if job.slice["method"] == "full":
        return link_model(adapter, job.out)
    progress: list[Progress] = []

    def report(done: int, total: int) -> None:
        if not progress:
            progress.append(Progress("merged", total // MB, "MB"))
        progress[0].reached(done // MB)

    return merge(job.inputs["model"], adapter, job.out, report)


def merge(base: Path, adapter: Path, out: Path, report: Report | None = None) -> dict[str, int]:
    """Write ``base`` with ``adapter`` merged in to the empty folder ``out``, in the base's file layout.

    Weight files in which nothing changes are hard-linked; configuration, tokenizer and chat template
    are the base's. ``report`` gets (bytes done, bytes in all), counting tensor bytes.

    Returns:
        Counts: tensors, merged_tensors (LoRA added), replaced_tensors (modules_to_save), bytes, files,
        unchanged_files.

    Raises:
        BuildError: the adapter is of a kind not merged here, does not fit the base, or a file is broken.
    """
    files = checkpoint.weight_files(base)
    config = checkpoint.read_json(adapter / "adapter_config.json")
    lora = checkpoint.read_weight_file(adapter / "adapter_model.safetensors")
    _check_config(config, adapter / "adapter_config.json")
    tensors = {name: tensor for file in files for name, tensor in file.tensors.items()}
    pairs, saved = _changes(config, lora, tensors)
    _check_architecture(base / "config.json", [tensors[name] for name in (*pairs, *saved)])
    edits: dict[str, Edit] = {name: partial(_add, lora.path, pair) for name, pair in pairs.items()}
    edits |= {name: partial(_replace, lora.path, new, tensors[name]) for name, new in saved.items()}
    counts = _write_weights(files, edits, out, report)
    checkpoint.place_companions(base, out, shutil.copyfile)
    return counts | {"merged_tensors": len(pairs), "replaced_tensors": len(saved)}


def link_model(source: Path, out: Path) -> dict[str, int]:
    """Fill the empty folder ``out`` with hard links (or copies) of a whole model: ``method: full``.

    Returns the counts of `merge`; raises BuildError if ``source`` is no complete safetensors model.
    """
    checkpoint.read_json(source / "config.json")
    counts = _write_weights(checkpoint.weight_files(source), {}, out, None)
    checkpoint.place_companions(source, out, checkpoint.link_or_copy)
    return counts | {"merged_tensors": 0, "replaced_tensors": 0}


@dataclass(frozen=True, slots=True)
class Pair:
    """The LoRA factors of one weight: ``a`` [r, in], ``b`` [out, r], and what their product is scaled by."""

    weight: Tensor
    a: Tensor
    b: Tensor
    scaling: float


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


def _check_config(config: Config, where: Path) -> None:
    """Refuse every kind of adapter whose merge is not the plain sum of weight and scaled product."""
    if config.get("peft_type") != "LORA":
        raise BuildError(f"{where}: peft_type is {config.get('peft_type')!r}; only LORA is merged")
    if config.get("bias", "none") != "none":
        raise BuildError(f"{where}: bias is {config['bias']!r}; trained biases are not merged, use none")
    # PiSSA, OLoRA, CorDA, LoftQ and others change the base's own weights when training starts.
    if (init := config.get("init_lora_weights", True)) not in (None, True, False, "gaussian", "orthogonal"):
        raise BuildError(
            f"{where}: init_lora_weights {init!r} changes the base; convert it to plain LoRA first"
        )
    for key, value in sorted(config.items()):
        if value and key not in KNOWN.split():
            raise BuildError(f"{where}: {key}: {REASONS.get(key, 'this variant of LoRA is not merged here')}")


def _check_architecture(path: Path, changed: list[Tensor]) -> None:
    """Refuse models in which a changed weight is stored transposed or shared between two layers."""
    config = checkpoint.read_json(path)
    if config.get("model_type") in CONV1D_MODELS:
        raise BuildError(f"{path}: {config['model_type']} stores its weights transposed; not merged here")
    text = {**(config.get("text_config") or {}), **config}
    rows = (text.get("vocab_size"),)
    ends = [weight.name for weight in changed if weight.shape[:1] == rows or TIED.search(weight.name)]
    if ends and text.get("tie_word_embeddings") is not False:
        raise BuildError(
            f"{path}: the adapter changes {ends[0]}, but the base does not say tie_word_embeddings: false, "
            "so input and output may share that weight; train without it"
        )


def _changes(config: Config, lora: WeightFile, tensors: Tensors) -> tuple[dict[str, Pair], Tensors]:
    """Match every adapter tensor with the base tensor it changes: by LoRA, and by replacement."""
    factors: dict[str, Tensors] = {}
    saved: Tensors = {}
    for name, tensor in lora.tensors.items():
        module, _, kind = name.removeprefix(PREFIX).rpartition(".lora_")
        if kind in ("A.weight", "B.weight"):
            factors.setdefault(module, {})[kind[0]] = tensor
        elif _is_saved(name.removeprefix(PREFIX), config):
            saved[name.removeprefix(PREFIX)] = tensor
        else:
            raise BuildError(
                f"{lora.path}: {name} is neither a LoRA factor of a Linear layer nor in modules_to_save; "
                "if it is a copy of the base's embeddings, save the adapter with save_embedding_layers=False"
            )
    _check_partners(lora.path, [*(f"{module}.weight" for module in factors), *saved], tensors)
    _check_replacements(lora.path, config, saved, tensors)
    weights = {module: tensors[f"{module}.weight"] for module in factors}
    pairs = [_pair(lora.path, config, module, factors[module], weight) for module, weight in weights.items()]
    return {pair.weight.name: pair for pair in pairs}, saved


def _check_partners(path: Path, names: list[str], tensors: Tensors) -> None:
    """Refuse an adapter made for another model, an empty one, and a weight changed in two ways."""
    if not names:
        raise BuildError(f"{path}: holds no tensors; the training wrote nothing")
    if missing := [name for name in names if name not in tensors]:
        raise BuildError(
            f"{path}: {len(missing)} of {len(names)} changed weights are not in the base: {naming(missing)} "
            "missing; was the adapter trained on another model, or on an lm_head tied to its embeddings?"
        )
    if len(set(names)) < len(names):
        raise BuildError(f"{path}: a weight has both LoRA factors and a modules_to_save copy; train with one")


def _is_saved(name: str, config: Config) -> bool:
    """Tell whether a tensor lies in a module of modules_to_save (PEFT: utils/other.py, _set_trainable)."""
    endings = tuple(config.get("modules_to_save") or ())
    return any(name[: dot.start()].endswith(endings) for dot in re.finditer(r"\.", name))


def _check_replacements(path: Path, config: Config, saved: Tensors, tensors: Tensors) -> None:
    """Check that each module of modules_to_save is replaced whole, by tensors of the same shape."""
    for name, base in tensors.items():
        if not _is_saved(name, config):
            continue
        if name not in saved:
            raise BuildError(f"{path}: {name} is in modules_to_save but not in the adapter; save it again")
        if saved[name].shape != base.shape:
            raise BuildError(f"{path}: {name} is {list(saved[name].shape)}, in the base {list(base.shape)}")
        _check_floats(path, [saved[name], base])


def _check_floats(path: Path, tensors: list[Tensor]) -> None:
    """Refuse to do arithmetic on packed or quantized tensors."""
    for tensor in tensors:
        if tensor.dtype not in FLOATS:
            raise BuildError(f"{path}: {tensor.name} is {tensor.dtype}; merging needs {', '.join(FLOATS)}")


def _pair(path: Path, config: Config, module: str, factors: Tensors, weight: Tensor) -> Pair:
    """Check that the factors of one module are there, of the configured rank, and fit the weight."""
    if factors.keys() != {"A", "B"}:
        raise BuildError(f"{path}: {module} has only lora_{min(factors)}; the adapter is incomplete")
    a, b = factors["A"], factors["B"]
    rank, scaling = rank_and_scaling(path, config, module)
    expected = ((rank, *weight.shape[1:]), (*weight.shape[:1], rank))
    if len(weight.shape) != 2 or (a.shape, b.shape) != expected:
        raise BuildError(
            f"{path}: {module} has lora_A {list(a.shape)}, lora_B {list(b.shape)}; "
            f"a weight {list(weight.shape)} with rank {rank} needs {[list(shape) for shape in expected]}"
        )
    _check_floats(path, [weight, a, b])
    return Pair(weight, a, b, scaling)


def _tensor(data: bytearray, tensor: Tensor) -> torch.Tensor:
    """View ``data`` as a torch tensor of the stored dtype and shape; both share their memory."""
    import torch

    return torch.frombuffer(data, dtype=getattr(torch, FLOATS[tensor.dtype])).view(tensor.shape)


def _load(path: Path, tensor: Tensor) -> torch.Tensor:
    """Read an adapter tensor into memory that torch allocated: matrix products may depend on alignment."""
    with path.open("rb", buffering=0) as file:
        return _tensor(checkpoint.read_tensor(file, tensor), tensor).clone()


def _add(path: Path, pair: Pair, data: bytearray) -> None:
    """Add scaling * (B @ A) to a weight in place, rounding once, to the weight's dtype.

    PEFT, peft/tuners/lora/layer.py: `Linear.get_delta_weight`, then `base_layer.weight.data += delta`
    in `Linear.merge`. The factors are float32 there whatever the file holds, since `from_pretrained`
    upcasts them (`cast_adapter_dtype` in peft/tuners/tuners_utils.py). The product is made whole, so
    that the matrix kernel is the same one; scaling and adding are element by element.
    """
    import torch

    delta = _load(path, pair.b).float() @ _load(path, pair.a).float()
    weight = _tensor(data, pair.weight)
    step = max(1, GRAIN // weight.shape[1])
    for rows, change in zip(weight.split(step), delta.split(step), strict=True):
        rows += change * pair.scaling
        if not all(math.isfinite(extreme) for extreme in torch.aminmax(rows)):
            raise BuildError(f"{path}: {pair.weight.name} becomes NaN or infinite; the training diverged")


def _replace(path: Path, new: Tensor, old: Tensor, data: bytearray) -> None:
    """Overwrite a tensor by its trained copy, rounded to the base's dtype as `load_state_dict` does."""
    _tensor(data, old).copy_(_load(path, new))
