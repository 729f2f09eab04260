"""LoRA adapters on disk: what one changes in a model, its ranks and scalings, and adding it to a weight."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflow import checkpoint
from workflow.checkpoint import Tensor, WeightFile, naming
from workflow.errors import BuildError

if TYPE_CHECKING:
    import torch

Config = dict[str, Any]  # of adapter_config.json
Tensors = dict[str, Tensor]
PATTERNS = {"r": "rank_pattern", "lora_alpha": "alpha_pattern"}
PREFIX = "base_model.model."  # PEFT's name for the wrapped model
FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
GRAIN = 1 << 15  # elements added at a time: they stay in the cache, and torch gives them to one thread

# What an adapter_config.json may set without changing the arithmetic here, or by way of it. Any other
# key with a value is refused: PEFT grows new LoRA variants with nearly every release.
KNOWN = (
    "alpha_pattern auto_mapping base_model_name_or_path bias ensure_weight_tying exclude_modules "
    "inference_mode init_lora_weights layers_pattern layers_to_transform lora_alpha lora_dropout "
    "megatron_core modules_to_save peft_type peft_version qalora_group_size r rank_pattern revision "
    "target_modules task_type use_dora use_rslora"
)
REASONS = {
    "lora_bias": "biases of LoRA layers are not merged; train with lora_bias: false",
    "fan_in_fan_out": "transposed weights (Conv1D, as in GPT-2) are not merged",
    "trainable_token_indices": "trained token rows are not merged; use modules_to_save",
    "target_parameters": "LoRA on bare parameters (fused experts) is not merged; target Linear layers",
    "layer_replication": "replicated layers change the model's shape",
}
TIED = re.compile(r"(^|\.)(lm_head|embed_tokens)\.weight$")
CONV1D_MODELS = frozenset({"gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp"})


@dataclass(frozen=True, slots=True)
class Pair:
    """The LoRA factors of one weight: ``a`` [r, in], ``b`` [out, r], and what their product is scaled by."""

    weight: Tensor
    a: Tensor
    b: Tensor
    scaling: float


def by_pattern(path: Path, config: Config, key: str, module: str) -> Any:
    """Look up a module's rank or alpha: the first pattern that matches the end of its name, else the default.

    As `get_pattern_key` in peft/utils/other.py, with Python's `re` on purpose: training chose by it too.
    """
    patterns: Config = config.get(PATTERNS[key]) or {}
    try:
        matches = (pattern for pattern in patterns if re.match(rf"(.*\.)?({pattern})$", module))
        value = patterns.get(next(matches, module), config.get(key))
    except re.error as error:
        raise BuildError(f"{path.with_name('adapter_config.json')}: a pattern for {key}: {error}") from error
    if isinstance(value, bool) or not isinstance(value, int | float) or (key == "r" and value <= 0):
        raise BuildError(f"{path.with_name('adapter_config.json')}: {key} of {module} is {value!r}")
    return value


def rank_and_scaling(path: Path, config: Config, module: str) -> tuple[int, float]:
    """A module's rank, and what the product of its factors is scaled by.

    `LoraLayer.update_layer` in peft/tuners/lora/layer.py; rsLoRA: arXiv 2312.03732.
    """
    rank, alpha = (by_pattern(path, config, key, module) for key in ("r", "lora_alpha"))
    return rank, alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def check_config(config: Config, where: Path) -> None:
    """Refuse every kind of adapter that is not known to merge into the bytes that PEFT gives."""
    if config.get("peft_type") == "IA3":
        return
    if config.get("peft_type") != "LORA":
        raise BuildError(f"{where}: peft_type is {config.get('peft_type')!r}; only LORA and IA3 are merged")
    # PiSSA, OLoRA, CorDA, LoftQ and others change the base's own weights when training starts.
    if (init := config.get("init_lora_weights", True)) not in (None, True, False, "gaussian", "orthogonal"):
        raise BuildError(
            f"{where}: init_lora_weights {init!r} changes the base; convert it to plain LoRA first"
        )
    for key, value in sorted(config.items()):
        if value and key not in KNOWN.split():
            raise BuildError(f"{where}: {key}: {REASONS.get(key, 'this variant of LoRA is not merged here')}")


def check_architecture(
    path: Path, config: Config, factors: list[str], saved: list[str], tensors: Tensors
) -> None:
    """Refuse models in which a changed weight is quantised, stored transposed or shared between two layers.

    Args:
        path: The base's config.json.
        config: The adapter's configuration.
        factors: Names of weights that factors change.
        saved: Names of tensors that are replaced.
        tensors: The base's tensors.
    """
    model = checkpoint.read_json(path)
    if model.get("quantization_config"):
        raise BuildError(f"{path}: the base is quantised; merge into the unquantised model")
    if model.get("model_type") in CONV1D_MODELS:
        raise BuildError(f"{path}: {model['model_type']} stores its weights transposed; not merged here")
    text = {**(model.get("text_config") or {}), **model}
    rows = (text.get("vocab_size"),)
    risky = [*factors, *(() if config.get("ensure_weight_tying") else saved)]
    ends = [name for name in risky if tensors[name].shape[:1] == rows or TIED.search(name)]
    if ends and text.get("tie_word_embeddings") is not False:
        raise BuildError(
            f"{path}: the adapter changes {ends[0]}, but the base does not say tie_word_embeddings: false, "
            "so input and output may share that weight; train without it, or both by modules_to_save"
        )


def changes(config: Config, lora: WeightFile, tensors: Tensors) -> tuple[dict[str, Pair], Tensors]:
    """Match every adapter tensor with the base tensor it changes: by LoRA, and by replacement."""
    factors: dict[str, Tensors] = {}
    saved: Tensors = {}
    for key, tensor in lora.tensors.items():
        name = key.removeprefix(PREFIX).replace(".base_layer.bias", ".bias")
        module, _, kind = name.rpartition(".lora_")
        if kind in ("A.weight", "B.weight"):
            factors.setdefault(module, {})[kind[0]] = tensor
        elif kind == "magnitude_vector" and config.get("use_dora"):
            continue  # PEFT's own code merges it
        elif _is_saved(name, config) or _is_trained_beside(name, config):
            saved[name] = tensor
        else:
            raise BuildError(
                f"{lora.path}: {key} is neither a LoRA factor of a Linear layer nor in modules_to_save; "
                "if it is a copy of the base's embeddings, save the adapter with save_embedding_layers=False"
            )
    _drop_tied_twin(lora.path, config, saved, tensors)
    _check_partners(lora.path, [*(f"{module}.weight" for module in factors), *saved], tensors)
    trained = config.get("bias", "none") != "none"
    biases = {f"{module}.bias" for module in factors} if trained else set()
    _check_replacements(lora.path, config, saved, tensors, biases)
    weights = {module: tensors[f"{module}.weight"] for module in factors}
    pairs = [_pair(lora.path, config, module, factors[module], weight) for module, weight in weights.items()]
    return {pair.weight.name: pair for pair in pairs}, saved


def _drop_tied_twin(path: Path, config: Config, saved: Tensors, tensors: Tensors) -> None:
    """Leave out the output's copy of embeddings that were trained as one weight and are stored once."""
    twins = [name for name in saved if TIED.search(name)]
    gone = [name for name in twins if name not in tensors]
    if not config.get("ensure_weight_tying") or len(twins) != 2 or len(gone) != 1:
        return
    with path.open("rb", buffering=0) as file:
        first, second = (checkpoint.read_tensor(file, saved[name]) for name in twins)
    if first != second:
        raise BuildError(f"{path}: {' and '.join(twins)} differ, but the base stores them as one weight")
    del saved[gone[0]]


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


def _is_trained_beside(name: str, config: Config) -> bool:
    """Tell whether a tensor is a trained bias, or the tied twin of saved embeddings."""
    if name.endswith(".bias"):
        return bool(config.get("bias", "none") != "none")
    return bool(config.get("ensure_weight_tying") and TIED.search(name))


def _check_replacements(
    path: Path, config: Config, saved: Tensors, tensors: Tensors, biases: set[str]
) -> None:
    """Check that each module of modules_to_save, and each bias, is replaced whole and in its shape."""
    for name, base in tensors.items():
        if not _is_saved(name, config) and name not in biases | saved.keys():
            continue
        if name not in saved:
            field = "bias" if name in biases else "modules_to_save"
            raise BuildError(f"{path}: {name} is in {field} but not in the adapter; save it again")
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


def as_tensor(data: bytearray, tensor: Tensor) -> torch.Tensor:
    """View ``data`` as a torch tensor of the stored dtype and shape; both share their memory."""
    import torch

    return torch.frombuffer(data, dtype=getattr(torch, FLOATS[tensor.dtype])).view(tensor.shape)


def _load(path: Path, tensor: Tensor) -> torch.Tensor:
    """Read an adapter tensor into memory that torch allocated: matrix products may depend on alignment."""
    with path.open("rb", buffering=0) as file:
        return as_tensor(checkpoint.read_tensor(file, tensor), tensor).clone()


def add(path: Path, pair: Pair, changed: set[str], data: bytearray) -> None:
    """Add scaling * (B @ A) to a weight in place, rounding once, to the weight's dtype.

    Its name goes into ``changed`` if any byte of it changes.

    PEFT, peft/tuners/lora/layer.py: `Linear.get_delta_weight`, then `base_layer.weight.data += delta`
    in `Linear.merge`. The factors are float32 there whatever the file holds, since `from_pretrained`
    upcasts them (`cast_adapter_dtype` in peft/tuners/tuners_utils.py). The product is made whole, so
    that the matrix kernel is the same one; scaling and adding are element by element.
    """
    import torch

    delta = _load(path, pair.b).float() @ _load(path, pair.a).float()
    weight = as_tensor(data, pair.weight)
    step = max(1, GRAIN // weight.shape[1])
    for rows, change in zip(weight.split(step), delta.split(step), strict=True):
        before = None if pair.weight.name in changed else rows.clone()
        rows += change * pair.scaling
        if before is not None and not torch.equal(before, rows):
            changed.add(pair.weight.name)
        if not all(math.isfinite(extreme) for extreme in torch.aminmax(rows)):
            raise BuildError(f"{path}: {pair.weight.name} becomes NaN or infinite; the training diverged")


def replace(path: Path, new: Tensor, old: Tensor, changed: set[str], data: bytearray) -> None:
    """Overwrite a tensor by its trained copy, rounded to the base's dtype as `load_state_dict` does."""
    import torch

    tensor, trained = as_tensor(data, old), _load(path, new)
    trained = trained.to(tensor.dtype)
    if not torch.isfinite(trained).all():
        raise BuildError(f"{path}: {old.name} is NaN or infinite; the training diverged")
    if not torch.equal(tensor, trained):
        changed.add(old.name)
        tensor.copy_(trained)
