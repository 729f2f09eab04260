"""How the training went, from the log that it left."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from workflow.report.inputs import Inputs
from workflow.report.plots import POINTS
from workflow.store.files import read_json

LOSS, FACTS = "loss.jsonl", "training.json"
CURVES = ("loss", "eval_loss", "learning_rate", "grad_norm")
Curve = list[tuple[float, float]]


@dataclass(frozen=True)
class Training:
    """The curves over optimizer steps; a loss that is not finite is counted, not drawn."""

    loss: Curve
    held_out: Curve
    rate: Curve
    norm: Curve
    epochs: float | None
    broken: int
    facts: dict[str, Any]  # of training.json

    @property
    def steps(self) -> int:
        """The last logged step."""
        return int(self.loss[-1][0])

    @property
    def lowest(self) -> tuple[float, float]:
        """Step and value of the lowest loss."""
        return min(self.loss, key=lambda point: (point[1], point[0]))

    @property
    def averaged(self) -> int:
        """Logged losses behind one point of the chart."""
        return math.ceil(len(self.loss) / POINTS)


def read_training(inputs: Inputs) -> Training | None:
    """The training behind the adapter; None where there is none or nothing finite was logged.

    Raises:
        BuildError: The log is missing or damaged.
    """
    if "adapter" not in inputs:
        return None
    logged = [record for record in inputs.records("adapter", LOSS) if _number(record.get("loss")) is not None]
    loss, held_out, rate, norm = (_curve(logged, name) for name in CURVES)
    if not loss:
        return None
    facts = read_json(inputs.folders["adapter"] / FACTS)
    epochs, broken = _number(logged[-1].get("epoch")), len(logged) - len(loss)
    return Training(loss, held_out, rate, norm, epochs, broken, facts)


def _curve(logged: list[dict[str, Any]], name: str) -> Curve:
    values = [(float(record["step"]), _number(record.get(name))) for record in logged]
    return sorted((step, value) for step, value in values if value is not None and math.isfinite(value))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
