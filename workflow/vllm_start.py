"""Starting vLLM: what it must know of the model, the machine and the recipe (vLLM 0.30)."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflow.checkpoint import read_json, weight_files
from workflow.errors import BuildError
from workflow.recipe.engines import Vllm

if TYPE_CHECKING:
    from vllm.v1.engine.llm_engine import LLMEngine

DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
ITEM_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
CPU_DRAWS = 256  # drawn at once on a CPU; more only makes each step longer
CPU_TOKENS = 4096  # prompt tokens of one step on a CPU
CPU_BLOCK = 32  # tokens; vLLM's 128 would let the draws of a row share nothing of a shorter prompt
CPU_CACHE = 2 << 30  # bytes; vLLM clears the KV cache on a CPU when it starts, 3 s per GiB
SPARE = 1.5  # blocks are not filled to the end and head sizes are padded


@dataclass(frozen=True)
class Setup:
    """What vLLM is started with; only the model, the adapter and the recipe have a say in what it answers."""

    model: Path
    max_model_len: int
    gpu_memory_utilization: float
    threads: int
    gpus: int
    prefix_caching: bool = True
    engine: Vllm = Vllm(name="vllm")  # the recipe's own words
    adapter: Path | None = None  # beside the model
    rank: int = 0  # that vLLM makes room for; 0: none


def position_limit(model: Path) -> int | None:
    """How many tokens the model's positions reach, or None if that takes vLLM to compute (scaled RoPE)."""
    config = _text_config(model)
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    scaled = isinstance(rope, dict) and (rope.get("rope_type") or rope.get("type") or "default") != "default"
    limit = config.get("max_position_embeddings")
    return limit if isinstance(limit, int) and not scaled else None


def dtype_of(model: Path) -> str:
    """The dtype of a checkpoint: vLLM's `auto` would make 16 bits of float32.

    Raises:
        BuildError: The configuration does not name it, and the weights do not agree on one.
    """
    config = _text_config(model)
    named = str(config.get("dtype") or config.get("torch_dtype") or "").removeprefix("torch.")
    if named in ITEM_BYTES:
        return named
    stored = {tensor.dtype for file in weight_files(model) for tensor in file.tensors.values()}
    if len(stored) != 1 or not stored <= DTYPES.keys():
        raise BuildError(f"{model / 'config.json'}: names no dtype, the weights have {stored}; add `dtype`")
    return DTYPES[stored.pop()]


def _text_config(model: Path) -> dict[str, Any]:
    config = read_json(model / "config.json")
    inner = config.get("text_config")
    return config | inner if isinstance(inner, dict) else config


def set_environment(setup: Setup) -> None:
    """Settings that must stand before vLLM and torch are imported."""
    forced = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # a child process would outlive a killed job
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "OMP_NUM_THREADS": str(setup.threads),  # instead of vLLM's binding to cores, which containers refuse
    }
    if setup.engine.batch_invariant and setup.gpus:  # on a CPU there are no such kernels, nor is there a need
        forced["VLLM_BATCH_INVARIANT"] = "1"
    os.environ.update(forced)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    # Threads that spin while they wait make it 2 to 5 times slower when another job has the core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def start(setup: Setup) -> LLMEngine:
    """Start vLLM with the garbage collector off: 4,900 modules of long-lived objects, 1.5 s less.

    Raises:
        BuildError: vLLM finds no device, or refuses the model, the adapter or the limits.
    """
    set_environment(setup)
    gc.disable()
    try:
        from vllm.engine.arg_utils import EngineArgs
        from vllm.platforms import current_platform
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.llm_engine import LLMEngine

        gc.freeze()
        arguments = EngineArgs(**arguments_on_this_machine(setup))
        with _own_temporary_folder() if current_platform.is_cpu() else nullcontext():
            return LLMEngine.from_engine_args(arguments, usage_context=UsageContext.LLM_CLASS)
    except (ValueError, RuntimeError) as error:  # of its own checks: memory, unsupported model, length, dtype
        if isinstance(error, RuntimeError) and not setup.engine.quantization:
            raise
        reason = " ".join(str(error).split())
        raise BuildError(f"{setup.model}: vLLM does not start: {reason}") from error
    finally:
        gc.enable()


def arguments_on_this_machine(setup: Setup) -> dict[str, Any]:
    """Arguments of vLLM's engine, in a server too; on a CPU torch and the model's class are made ready.

    Raises:
        BuildError: The installed vLLM finds no device.
    """
    import torch
    from vllm.platforms import current_platform

    if not current_platform.device_type:
        raise BuildError("the installed vLLM is for GPUs and finds none; on a CPU: pip install '.[cpu]'")
    if not current_platform.is_cpu():
        return {**_arguments(setup), **_gpu(setup)}
    torch.set_num_threads(setup.threads)  # torch may have been imported before
    _import_model_class(setup.model)
    return {**_arguments(setup), **_cpu(setup)}


@contextmanager
def _own_temporary_folder() -> Iterator[None]:
    """Where one process meets itself: vLLM leaves that file behind in the temporary folder at each start."""
    before = tempfile.gettempdir()
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder
        try:
            yield
        finally:
            tempfile.tempdir = before


def _import_model_class(model: Path) -> None:
    """Let vLLM inspect the model's class here: alone it starts another process for it, 10 s."""
    from vllm.model_executor.models.registry import ModelRegistry

    for architecture in read_json(model / "config.json").get("architectures") or []:
        if architecture in ModelRegistry.models:
            ModelRegistry.register_model(architecture, ModelRegistry.models[architecture].load_model_cls())


def _arguments(setup: Setup) -> dict[str, Any]:
    return {
        "model": str(setup.model),
        "dtype": dtype_of(setup.model),
        "max_model_len": setup.max_model_len,
        "generation_config": "vllm",  # nothing from the model's generation_config.json
        "trust_remote_code": False,
        "seed": 0,
        "disable_log_stats": True,
        "enable_prefix_caching": setup.prefix_caching,
        "quantization": setup.engine.quantization,
        **({"enable_lora": True, "max_loras": 1, "max_lora_rank": setup.rank} if setup.adapter else {}),
    }


def _gpu(setup: Setup) -> dict[str, Any]:
    many = {"tensor_parallel_size": setup.gpus} if setup.gpus > 1 else {}
    return {"gpu_memory_utilization": setup.gpu_memory_utilization, **many}


def _cpu(setup: Setup) -> dict[str, Any]:
    """Settings for a CPU.

    A prompt is never split over two steps: taking a sample back, vLLM calls `Generator.set_offset`,
    which torch has for GPUs only ("CPU Generator does not use offset").
    """
    return {
        "enforce_eager": True,
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(setup.max_model_len, CPU_TOKENS),
        "max_num_seqs": CPU_DRAWS,
        "block_size": CPU_BLOCK,
        "kv_cache_memory_bytes": _cache_bytes(setup),
    }


def _cache_bytes(setup: Setup) -> int:
    """KV cache for all draws at once if that is little, for at least one draw in any case."""
    config = _text_config(setup.model)
    heads = config.get("num_attention_heads") or 1
    size = config.get("head_dim") or -(-config.get("hidden_size", 0) // heads)
    layers, kv_heads = config.get("num_hidden_layers") or 1, config.get("num_key_value_heads") or heads
    per_token = 2 * layers * kv_heads * size * ITEM_BYTES[dtype_of(setup.model)]
    one = int(SPARE * per_token * (setup.max_model_len + CPU_BLOCK))
    return max(one, min(one * CPU_DRAWS, CPU_CACHE), 1 << 24)
