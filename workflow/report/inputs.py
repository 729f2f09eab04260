"""The inputs of a report by role, any of which a recipe may lack."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow.errors import BuildError
from workflow.store.build import Job
from workflow.store.files import read_json
from workflow.store.lineage import Step
from workflow.store.records import Manifest
from workflow.store.store import read_manifest
from workflow.tokens import read_shards

ROLES = {
    "rows_train": "training rows",
    "rows_test": "test rows",
    "overlap": "overlap of training and test",
    "tokenizer": "tokenizer",
    "shards_train": "training tokens",
    "shards_test": "test tokens",
    "adapter": "training",
    "merged": "merged model",
    "base": "answers of the base model",
    "greedy": "answers of this model, greedy",
    "predictions": "answers of this model, drawn",
    "likelihood": "loss of known answers, this model",
    "base_likelihood": "loss of known answers, base model",
    "voted": "votes",
    "scores": "scores",
}
"""Role -> what a person calls it, in the order of the flow."""


@dataclass(frozen=True)
class Inputs:
    """Folders, manifests and run records by role, in the order of the flow."""

    folders: dict[str, Path]
    manifests: dict[str, Manifest]
    runs: dict[str, dict[str, Any]]  # empty where nothing was recorded
    lineage: dict[str, tuple[Step, ...]]

    @classmethod
    def of(cls, job: Job) -> Inputs:
        """Read all manifests and run records of a job."""
        order = [*(role for role in ROLES if role in job.inputs), *sorted(job.inputs.keys() - ROLES.keys())]
        manifests = {role: read_manifest(job.inputs[role]) for role in order}
        return cls(
            {role: job.inputs[role] for role in order},
            manifests,
            {role: _run(job.run_records.get(role)) for role in order},
            job.lineage,
        )

    @property
    def steps(self) -> list[Step]:
        """All products behind the page down to the sources, each once, what others are made of first."""
        found = {step.address: step for role in self.folders for step in self.lineage.get(role, ())}
        return list(found.values())

    def __contains__(self, role: object) -> bool:
        """Whether the recipe has this role."""
        return role in self.folders

    def label(self, role: str) -> str:
        """What a person calls the role."""
        return ROLES.get(role, f"answers of {role}")

    def counts(self, role: str) -> dict[str, Any]:
        """What the role's product counted; empty without the role."""
        return self.manifests[role].counts if role in self else {}

    def records(self, role: str, name: str) -> Iterator[dict[str, Any]]:
        """The objects in a JSON lines file.

        Raises:
            BuildError: The file is missing, or a line is not an object.
        """
        path = self.folders[role] / name
        if not path.is_file():
            raise BuildError(f"{path}: no such file; build the product that makes it again")
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                yield _object(line, f"{path}:{number}")

    def lengths(self, role: str) -> Counter[int]:
        """Tokens of a row -> number of such rows."""
        found: Counter[int] = Counter()
        for shard in read_shards(self.folders[role]):
            found.update(shard.lengths.tolist())
        return found


def _object(line: bytes, place: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise BuildError(f"{place}: damaged ({error}); build it again") from None
    if not isinstance(record, dict):
        raise BuildError(f"{place}: damaged (not an object); build it again")
    return record


def _run(path: Path | None) -> dict[str, Any]:
    """A run record; nothing depends on one, so a missing or damaged one is no error."""
    try:
        record = read_json(path) if path else {}
    except BuildError:
        return {}
    return record if isinstance(record, dict) else {}
