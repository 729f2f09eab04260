"""The process that is vLLM's OpenAI-compatible server: `python -m workflow.serving.program <spec.json>`."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from workflow.serving.stops import VARIABLE
from workflow.vllm_start import Setup, arguments_on_this_machine, position_limit, set_environment

if TYPE_CHECKING:
    from argparse import Namespace

CPU_LENGTH = 4096
"""Tokens of the context on a CPU, where neither recipe nor user say: the KV cache is allocated at once."""


@dataclass(frozen=True)
class Spec:
    """What is served and how; `name` -> model, and by other names adapters on it."""

    model: str
    name: str
    folder: str
    """Holds `chat_template.jinja` and `generation_config.json`."""
    host: str
    port: int
    stop: list[str] = field(default_factory=list)
    adapters: dict[str, str] = field(default_factory=dict)
    rank: int = 0
    length: int | None = None
    gpu_memory_utilization: float = 0.9
    threads: int = 1
    gpus: int = 0
    extra: list[str] = field(default_factory=list)
    """vLLM's own flags, which come last."""


def main(path: Path) -> None:
    """Serve until a signal comes."""
    spec = Spec(**json.loads(path.read_text(encoding="utf-8")))
    set_environment(_setup(spec))
    os.environ[VARIABLE] = json.dumps(spec.stop)
    import uvloop
    from vllm.entrypoints.launchers.api_server.entry import run_server

    uvloop.run(run_server(arguments(spec)))


def arguments(spec: Spec) -> Namespace:
    """The server's arguments: ours as defaults, so that a flag of the user's counts."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = make_arg_parser(FlexibleArgumentParser())
    own = arguments_on_this_machine(_setup(spec)) | _frontend(spec)
    parser.set_defaults(**own)
    found: Namespace = parser.parse_args(spec.extra)
    validate_parsed_serve_args(found)
    return found


def _setup(spec: Spec) -> Setup:
    model = Path(spec.model)
    limit = position_limit(model)
    length = spec.length or (limit if spec.gpus else min(limit or CPU_LENGTH, CPU_LENGTH))
    return Setup(model, length or CPU_LENGTH, spec.gpu_memory_utilization, spec.threads, spec.gpus)


def _frontend(spec: Spec) -> dict[str, object]:
    found: dict[str, object] = {
        "host": spec.host,
        "port": spec.port,
        "served_model_name": [spec.name],
        "chat_template": str(Path(spec.folder) / "chat_template.jinja"),
        "chat_template_content_format": "string",  # as training's messages are
        "generation_config": spec.folder,  # the stop tokens, and the recipe's sampling for who names none
        "disable_uvicorn_access_log": True,
    }
    if spec.stop:
        found["middleware"] = ["workflow.serving.stops.DefaultStops"]
    if spec.adapters:
        from vllm.entrypoints.openai.models.protocol import LoRAModulePath

        modules = [LoRAModulePath(name, path) for name, path in spec.adapters.items()]
        found |= {"enable_lora": True, "lora_modules": modules, "max_loras": len(modules)}
        found["max_lora_rank"] = spec.rank
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
