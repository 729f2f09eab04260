"""Commands that let people use what was trained: a server, a conversation, answers to new rows."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from workflow.errors import BuildError

if TYPE_CHECKING:
    from workflow.serving.choice import Choice
    from workflow.serving.server import Server

LOGS = Path("logs/serve")


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    serve = commands.add_parser(
        "serve", help="build what is missing, then serve it to OpenAI clients by vLLM"
    )
    serve.add_argument("recipe", nargs="+", help="recipe name; several: their adapters, on their one base")
    serve.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: this machine only)"
    )
    serve.add_argument("--port", type=int, default=8000, help="port (default: 8000; 0: any free one)")
    serve.epilog = "Behind `--`: flags of vLLM's server, e.g. -- --max-model-len 2048"
    serve.set_defaults(run=_serve, flags=[])
    chat = commands.add_parser("chat", help="talk to the model of a recipe in this terminal")
    chat.add_argument("recipe", help="recipe name")
    chat.add_argument("--url", help="a server that runs already, e.g. http://127.0.0.1:8000")
    chat.set_defaults(run=_chat)
    predict = commands.add_parser("predict", help="answer new rows as the recipe answers its test rows")
    predict.add_argument("recipe", help="recipe name")
    predict.add_argument("rows", type=Path, help="file in the format of the recipe's test rows")
    predict.set_defaults(run=_predict)


@contextmanager
def _until_interrupted() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end what is inside, and leave nothing alive behind this process."""
    from workflow.death import leave_nothing_behind

    leave_nothing_behind()

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    with suppress(KeyboardInterrupt):
        yield


@contextmanager
def _served(choice: Choice, host: str, port: int, flags: list[str]) -> Iterator[Server]:
    """Build what is missing and serve it."""
    from workflow.cli.building import build
    from workflow.devices import claimed
    from workflow.engine import require_vllm
    from workflow.serving.choice import gpus_of, refuse_flags
    from workflow.serving.server import Server, refuse_used_port

    refuse_flags(flags)
    require_vllm()
    refuse_used_port(host, port)
    build(choice.targets())
    log = LOGS / f"{'+'.join(name.replace('/', '-') for name in choice.graphs)}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    with tempfile.TemporaryDirectory(prefix="tunemake-served-") as folder, claimed(gpus_of(flags)):
        spec = choice.spec(Path(folder), host, port, flags)
        print(f"vLLM starts; what it prints goes to {log}", file=sys.stderr, flush=True)
        with Server(spec, log) as server:
            yield server.ready()


def _serve(options: argparse.Namespace) -> None:
    from workflow.serving.choice import Choice
    from workflow.serving.server import curl

    choice = Choice.of(list(dict.fromkeys(options.recipe)))
    with _until_interrupted(), _served(choice, options.host, options.port, options.flags) as server:
        name, graph = next(iter(choice.graphs.items()))
        question = graph.recipe.serving.questions[0].ask if graph.recipe.serving else "Hello"
        print(f"{', '.join(choice.graphs)} at {server.url}/v1 (Ctrl-C ends it); ask:", flush=True)
        print(curl(server.url, name, question), flush=True)
        status = server.process.wait()
        raise BuildError(f"vLLM's server ended with status {status}; see {server.log}")


def _chat(options: argparse.Namespace) -> None:
    from workflow.cli.talking import talk
    from workflow.serving.choice import Choice

    choice = Choice.of([options.recipe])
    sampling = choice.graphs[options.recipe].recipe.sampling
    most = sampling.max_tokens if sampling else None
    with _until_interrupted():
        if options.url:
            talk(options.url.rstrip("/").removesuffix("/v1"), options.recipe, most)
        else:
            with _served(choice, "127.0.0.1", 0, []) as server:
                talk(server.url, options.recipe, most)


def _predict(options: argparse.Namespace) -> None:
    from workflow.cli.building import build
    from workflow.predicting import asked, written

    nodes = asked(options.recipe, options.rows)
    build(list(nodes))
    for path in written(nodes.values(), options.rows):
        print(path)
