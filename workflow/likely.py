"""Loss and perplexity of known answers, from what each model made of each row."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from workflow.errors import BuildError
from workflow.measures import Likelihood, Likely
from workflow.results import LIKELIHOOD, AskedRow, LikelyRow, read_records
from workflow.significance import paired, resampled, rounded
from workflow.text_scores import PAIRS

ROLES = {"likelihood": "greedy", "base_likelihood": "base"}
"""Input -> the system that it is of."""


@dataclass
class LikelyTally:
    """What each model made of the rows, and of which problem they are."""

    found: dict[str, dict[str, LikelyRow]] = field(default_factory=dict)  # system -> row id -> line
    problems: dict[str, str] = field(default_factory=dict)  # row id -> problem

    @classmethod
    def of(cls, inputs: Mapping[str, Path]) -> LikelyTally:
        """Read what there is among the inputs of `scores`.

        Raises:
            BuildError: A file is damaged, or two models saw different rows or tokens.
        """
        tally = cls()
        for role, system in ROLES.items():
            if role in inputs:
                lines = read_records(inputs[role] / LIKELIHOOD, LikelyRow)
                tally.found[system] = {line.id: line for line in lines}
        tokens = [{id: line.tokens for id, line in lines.items()} for lines in tally.found.values()]
        if any(other != tokens[0] for other in tokens[1:]):
            raise BuildError(f"{LIKELIHOOD} of base and tuned model are about different tokens; build again")
        return tally

    def add(self, row: AskedRow) -> dict[str, float]:
        """Note a row's problem; system -> geometric mean of its tokens' probabilities, where it is there."""
        lines = {system: found[row.id] for system, found in self.found.items() if row.id in found}
        if lines:
            self.problems[row.id] = row.group or row.id
        return {system: rounded(math.exp(-line.loss / line.tokens)) for system, line in lines.items()}

    def result(self, resamples: int, seed: int) -> Likelihood | None:
        """The figures of each model, and whether they differ; None where there is none."""
        if not self.problems:
            return None
        names = {name: place for place, name in enumerate(sorted(set(self.problems.values())))}
        systems = list(self.found)
        sums = np.zeros((len(names), len(systems) + 1))  # losses, and last the tokens
        for id, problem in sorted(self.problems.items()):
            losses = [self.found[system][id].loss for system in systems]
            sums[names[problem]] += [*losses, self.found[systems[0]][id].tokens]
        own = (total := sums.sum(axis=0))[:-1] / total[-1]
        drawn = np.concatenate([part[:, :-1] / part[:, -1:] for part in resampled(sums, resamples, seed)])
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        measured = {
            system: Likely(
                loss=rounded(own[i]),
                low=rounded(low[i]),
                high=rounded(high[i]),
                perplexity=rounded(math.exp(own[i])),
            )
            for i, system in enumerate(systems)
        }
        tests = {
            name: paired(
                *(part[..., systems.index(one)] - part[..., systems.index(other)] for part in (own, drawn))
            )
            for name, (one, other) in PAIRS.items()
            if {one, other} <= measured.keys()
        }
        counts = {"rows": len(self.problems), "problems": len(names), "tokens": int(total[-1])}
        return Likelihood(**counts, systems=measured, tests=tests)
