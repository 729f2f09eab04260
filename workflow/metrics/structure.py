"""Metrics of structured answers: whether a text is JSON, and JSON of the wanted shape."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from workflow.errors import BuildError
from workflow.metrics.metric import Metric
from workflow.results import AskedRow


class JsonValid(Metric):
    """Whether the whole text is one JSON value (RFC 8259): no fence around it, no NaN."""

    name, signature, needs_gold = "json_valid", "RFC 8259, the whole text", False

    def score(self, row: AskedRow, text: str) -> float:
        """1 or 0."""
        return float(parsed(text)[0])


class SchemaValid(Metric):
    """Whether the whole text is JSON that a JSON Schema accepts."""

    name, needs_gold = "schema_valid", False

    def __init__(self, path: Path):
        """Validate by the schema in a file.

        Raises:
            BuildError: It is none, or refers to other files.
        """
        from jsonschema_rs import validator_for

        self.signature = (
            f"JSON Schema, draft 2020-12 unless it says another|jsonschema-rs:{version('jsonschema-rs')}"
        )
        try:
            self._validator: Any = validator_for(
                json.loads(path.read_text(encoding="utf-8")), retriever=_refuse
            )
        except (OSError, ValueError) as error:  # of JSON, of UTF-8 and of the schema
            reason = str(error).strip().splitlines()[0]
            raise BuildError(f"{path}: not a JSON Schema that can be used ({reason})") from None

    def score(self, row: AskedRow, text: str) -> float:
        """1 or 0."""
        valid, value = parsed(text)
        return float(valid and self._validator.is_valid(value))


def parsed(text: str) -> tuple[bool, Any]:
    """Whether a text is one JSON value, and the value."""
    try:
        return True, json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return False, None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _refuse(uri: str) -> NoReturn:
    raise ValueError(f"it refers to {uri}; put that into the same file, under $defs")
