"""vLLM in this process: token-id prompts in, draws out as they finish.

Not `vllm.LLM`: its `generate` returns when everything is done, and importing it loads a web server.
Below it is the same engine, driven one step at a time (vLLM 0.30).
"""

from __future__ import annotations

import gc
import hashlib
import importlib.util
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from workflow.checkpoint import read_json, weight_files
from workflow.errors import BuildError
from workflow.recipe.answers import Sampling

if TYPE_CHECKING:
    from vllm.v1.engine.llm_engine import LLMEngine

DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
ITEM_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
CPU_DRAWS = 256  # drawn at once on a CPU; more only makes each step longer
CPU_TOKENS = 4096  # prompt tokens of one step on a CPU
CPU_BLOCK = 32  # tokens; vLLM's 128 would let the draws of a row share nothing of a shorter prompt
CPU_CACHE = 2 << 30  # bytes; vLLM clears the KV cache on a CPU when it starts, 3 s per GiB
SPARE = 1.5  # blocks are not filled to the end and head sizes are padded
SEEDS = 1 << 62  # vLLM keeps a seed as int64, and the number of the draw is added to it


@dataclass(frozen=True)
class Setup:
    """What the engine is started with; of these only the model has a say in what it answers."""

    model: Path
    max_model_len: int
    gpu_memory_utilization: float
    threads: int
    gpus: int


@dataclass(frozen=True)
class Question:
    """One draw to be made: its row and number, the token ids of its prompt, its seed."""

    row: str
    draw: int
    prompt: list[int]
    seed: int


@dataclass(frozen=True)
class Draw:
    """One answer; `token_ids` end with the stop token or string that `text` lacks."""

    text: str
    token_ids: list[int]
    finish_reason: Literal["stop", "length"]


def require_vllm() -> None:
    """Look for vLLM without importing it.

    Raises:
        BuildError: It is not installed; nothing else can take its place.
    """
    if importlib.util.find_spec("vllm") is None:
        raise BuildError("vLLM is not installed; predictions need it: pip install '.[cpu]' or '.[gpu]'")


def seed_of(seed: int, row: str, draw: int) -> int:
    """The seed of a draw: 62 bits of blake2b over the recipe's seed and the row's id, plus the draw's number.

    Hence `n: 3 -> 5` keeps the first three, and a draw depends neither on the order of the rows nor on
    what else is in the batch.
    """
    digest = hashlib.blake2b(f"{seed}\n{row}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % SEEDS + draw


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


class Engine:
    """One model, ready to answer."""

    def __init__(self, setup: Setup):
        """Load the model.

        Raises:
            BuildError: vLLM is not installed, finds no device, or refuses the model or the limits.
        """
        require_vllm()
        set_environment(setup.threads)
        self._setup, self._engine = setup, _start(setup)
        self.draws_at_once: int = self._engine.vllm_config.scheduler_config.max_num_seqs
        self.generated_tokens = 0

    @property
    def in_flight(self) -> int:
        """Questions handed to vLLM at a time: twice what it draws at once, so that its batch stays full."""
        return 2 * self.draws_at_once

    def answer(
        self, questions: Iterable[Question], sampling: Sampling, stop_token_ids: list[int]
    ) -> Iterator[list[tuple[Question, Draw]]]:
        """Answer all questions, a bounded number at a time.

        Yields:
            After each step the draws that it finished, most often none.
        """
        waiting, running = iter(questions), dict[str, Question]()
        while True:
            for question in islice(waiting, self.in_flight - len(running)):
                name = f"{question.draw} {question.row}"
                self._ask(name, question, sampling, stop_token_ids)
                running[name] = question
            if not running:
                return
            outputs = [output for output in self._engine.step() if output.finished]
            yield [(running.pop(output.request_id), self._draw(output)) for output in outputs]

    def _ask(self, name: str, question: Question, sampling: Sampling, stop_token_ids: list[int]) -> None:
        from vllm.inputs import TokensPrompt
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        params = SamplingParams(
            n=1,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k or 0,  # 0: all
            repetition_penalty=sampling.repetition_penalty,
            max_tokens=sampling.max_tokens,
            stop=list(sampling.stop) or None,
            stop_token_ids=stop_token_ids,
            seed=question.seed if sampling.temperature else None,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        self._engine.add_request(name, TokensPrompt(prompt_token_ids=question.prompt), params)

    def _draw(self, output: Any) -> Draw:
        (completion,) = output.outputs
        reason = completion.finish_reason
        if reason not in ("stop", "length"):
            raise RuntimeError(f"vLLM ended a draw by {reason!r}")
        self.generated_tokens += len(completion.token_ids)
        return Draw(completion.text, list(completion.token_ids), reason)

    def close(self) -> None:
        """End the worker processes of tensor parallelism; without any the 1.4 s of a shutdown are saved."""
        if self._setup.gpus > 1:
            self._engine.engine_core.shutdown()


def set_environment(threads: int) -> None:
    """Settings that must stand before vLLM and torch are imported."""
    forced = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # a child process would outlive a killed job
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "OMP_NUM_THREADS": str(threads),  # instead of vLLM's binding to cores, which containers refuse
    }
    os.environ.update(forced)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    # Threads that spin while they wait make it 2 to 5 times slower when another job has the core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _start(setup: Setup) -> LLMEngine:
    """Start vLLM with the garbage collector off: 4,900 modules of long-lived objects, 1.5 s less."""
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
    except ValueError as error:  # of vLLM's own checks: memory, unsupported model, length, dtype
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
