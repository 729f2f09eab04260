"""How long each product took and with what, from the records that every run leaves."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from workflow.report.inputs import Inputs


@dataclass(frozen=True)
class Timing:
    """One product; `seconds` is None where nothing was recorded, `same` the role that shows it already."""

    role: str
    seconds: float | None
    share: float  # per cent of the longest
    same: str | None
    record: dict[str, Any]


def timings(inputs: Inputs) -> list[Timing]:
    """One line per role; a product in two roles was made once, and counts once."""
    first: dict[str, str] = {}
    shown = {role: first.setdefault(str(folder), role) for role, folder in inputs.folders.items()}
    seconds = {role: _seconds(inputs.runs[role]) for role in inputs.folders}
    longest = max((value for value in seconds.values() if value), default=1.0)
    return [
        Timing(
            role,
            seconds[role],
            round(100 * (seconds[role] or 0) / longest, 2),
            None if shown[role] == role else shown[role],
            inputs.runs[role],
        )
        for role in inputs.folders
    ]


def _seconds(record: dict[str, Any]) -> float | None:
    value = record.get("seconds")
    return float(value) if isinstance(value, int | float) else None


def libraries(inputs: Inputs) -> list[tuple[str, str, list[str]]]:
    """Library, version and the roles it was installed for, sorted; one line per version."""
    found: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for role, record in inputs.runs.items():
        versions = record.get("versions")
        if isinstance(versions, dict):
            for name, version in versions.items():
                found[str(name), str(version)].append(role)
    return [(name, version, roles) for (name, version), roles in sorted(found.items())]


def environments(inputs: Inputs) -> list[str]:
    """On what the products were made: host, machine and device, with the roles made there; sorted."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for role, record in inputs.runs.items():
        facts = [str(record[name]) for name in ("host", "machine", "device") if record.get(name)]
        if facts:
            cores = f", {record['cores']} cores" if record.get("cores") else ""
            found[", ".join(facts) + cores].append(role)
    return [f"{name}: {', '.join(roles)}" for name, roles in sorted(found.items())]


def answering(inputs: Inputs) -> dict[str, float]:
    """System -> seconds that its answers took, where all are recorded; for the vote of all voters."""
    drawn = [role for role in inputs.folders if role == "predictions" or role.startswith("voter ")]
    roles = {"base": ["base"], "greedy": ["greedy"], "draws": ["predictions"], "voted": drawn}
    found = {name: [_seconds(inputs.runs.get(role, {})) for role in each] for name, each in roles.items()}
    known = {name: [s for s in each if s is not None] for name, each in found.items()}
    return {name: sum(known[name]) for name, each in found.items() if len(known[name]) == len(each) > 0}
