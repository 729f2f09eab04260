"""What `tunemake serve` serves: one recipe's model, or several recipes' adapters on their one base."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from workflow.beside import rank_to_serve
from workflow.devices import visible_gpus
from workflow.errors import BuildError
from workflow.graph import Graph
from workflow.node import Node
from workflow.recipe.leaf import slice_of
from workflow.recipe.tuning import Factors, Prompt, Qlora
from workflow.serving.folder import write_folder
from workflow.serving.program import Spec
from workflow.serving.template import Dialogue
from workflow.settle import RESULTS, draw, graph, settle
from workflow.store.store import Store

ALONE = "serve this recipe alone: it is merged"
BASE = "base"
"""Name of the model below several adapters."""
REFUSED = (
    *("--trust-remote-code", "--chat-template", "--model", "--tokenizer", "--config", "--generation-config"),
    *("--served-model-name", "--lora-modules", "--host", "--port", "--middleware"),
)
"""Flags of vLLM's that would serve something else than was trained, or run its code."""


@dataclass(frozen=True)
class Choice:
    """Recipes that one server serves."""

    graphs: dict[str, Graph]

    @classmethod
    def of(cls, names: Sequence[str]) -> Choice:
        """Read the recipes.

        Raises:
            BuildError: One cannot be served, or not with the others.
        """
        chosen = cls({name: graph(name) for name in names})
        for name, one in chosen.graphs.items():
            if isinstance(one.recipe.tuning, Prompt):
                method = one.recipe.tuning.method
                raise BuildError(f"{name}: {method} changes no weight, and vLLM serves no trained prompt")
            if len(names) > 1:
                chosen._check_adapter(name, one)
        return chosen

    def _check_adapter(self, name: str, one: Graph) -> None:
        first, tuning = next(iter(self.graphs)), one.recipe.tuning
        if not isinstance(tuning, Factors) or (
            isinstance(tuning, Qlora) and tuning.merge_into == "dequantized"
        ):
            method = tuning.method if tuning else "no tuning"
            raise BuildError(f"{name}: {method} leaves no adapter of its base; serve it alone: it is merged")
        if one.node("model").address != self.graphs[first].node("model").address:
            raise BuildError(f"{name} and {first} have different base models; serve each alone")

    @property
    def several(self) -> bool:
        """Whether adapters are served, and not a merged model."""
        return len(self.graphs) > 1

    def _model(self, one: Graph) -> Node:
        return one.products["merged" if "merged" in one.products and not self.several else "model"]

    def targets(self) -> list[str]:
        """What Snakemake is to build: what users would ask for, and stamps of what has no name of its own.

        Raises:
            BuildError: Something cannot be built.
        """
        store, found = Store.here(), dict[str, None]()
        for name, one in self.graphs.items():
            shown = "adapter" if self.several else "merged"
            if shown in one.products:
                found[str(RESULTS / name / shown)] = None
            for node in (self._model(one), one.node("tokenizer")):
                settle(store, node)
                found[str(store.stamp(node.product, node.address))] = None
        return list(found)

    def _folder(self, node: Node) -> Path:
        store = Store.here()
        receipt = store.built(node.product, node.address)
        if receipt is None:
            raise BuildError(f"{node.product} {node.address}: is not built; build again")
        return store.folder(node.product, receipt.key).absolute()

    def dialogue(self, name: str) -> Dialogue:
        """How conversations with the model of one recipe are rendered; its tokenizer is built."""
        one = self.graphs[name]
        recipe = one.recipe
        return Dialogue(
            path=draw().folder / recipe.prompt.template,
            tokenizer=self._folder(one.node("tokenizer")),
            chosen=slice_of(recipe.prompt, "shards"),
            system=recipe.serving.system if recipe.serving else None,
        )

    def spec(self, folder: Path, host: str, port: int, extra: list[str]) -> Spec:
        """What the server is started with; all is built. Its small files are written to `folder`.

        Raises:
            BuildError: A template cannot be served, or the recipes differ in theirs; an adapter does not
                belong to the base; a flag of vLLM's would serve something else.
        """
        refuse_flags(extra)
        name, first = next(iter(self.graphs.items()))
        dialogue, sampling = self.dialogue(name), first.recipe.sampling
        self._check_templates(dialogue)
        alike = all(one.recipe.sampling == sampling for one in self.graphs.values())
        write_folder(dialogue, folder, sampling.model_dump() if sampling and alike else None)
        base, execution = self._folder(self._model(first)), first.recipe.execution
        adapters = {n: self._folder(one.node("adapter")) for n, one in self.graphs.items() if self.several}
        return Spec(
            model=str(base), name=BASE if self.several else name, folder=str(folder), host=host, port=port,
            stop=dialogue.stop, adapters={n: str(path) for n, path in adapters.items()},
            rank=max((rank_to_serve(base, path, ALONE) for path in adapters.values()), default=0),
            length=execution.max_model_len, gpu_memory_utilization=execution.gpu_memory_utilization,
            threads=len(os.sched_getaffinity(0)), gpus=gpus_of(extra), extra=extra,
        )  # fmt: skip

    def _check_templates(self, dialogue: Dialogue) -> None:
        first, *others = self.graphs
        for other in others:
            its = self.dialogue(other)
            if (its.template(), its.stop) != (dialogue.template(), dialogue.stop):
                raise BuildError(
                    f"{other} and {first} were trained with different prompts (template, system text, stop, "
                    "history), and a server has one; serve each alone"
                )


def refuse_flags(extra: list[str]) -> None:
    """Raise BuildError for a flag that would serve something else than was trained, or run a model's code."""
    for flag in (word.partition("=")[0].replace("_", "-") for word in extra if word.startswith("--")):
        if any(refused.startswith(flag) or flag.startswith(refused) for refused in REFUSED):
            raise BuildError(f"{flag}: not with tunemake serve, which serves exactly what was trained")


def gpus_of(extra: list[str]) -> int:
    """GPUs that the server takes: one where there is any, or as many as its flags say."""
    words = [part.replace("_", "-") for word in extra for part in word.split("=", 1)]
    at = [i + 1 for i, word in enumerate(words) if word in ("--tensor-parallel-size", "-tp")]
    wanted = int(words[at[-1]]) if at and words[at[-1] :] and words[at[-1]].isdigit() else 1
    return wanted if visible_gpus() else 0
