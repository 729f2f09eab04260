"""YAML 1.2 core schema with places: every value knows the line and column it was written at.

PyYAML reads YAML 1.1, where `1e-4` is a string, `no` is false, `010` is eight and a repeated key
silently wins. Here libyaml only parses; scalars are resolved by the core schema of YAML 1.2
(https://yaml.org/spec/1.2.2/#103-core-schema) and a repeated key is an error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

Path = tuple[str | int, ...]

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_NODES = 100_000
MAX_DIGITS = 40

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq", "!")


_DEFAULT_TAGS = dict(zip((yaml.ScalarNode, yaml.MappingNode, yaml.SequenceNode), _TAGS, strict=False))


class YamlError(Exception):
    """A document that cannot be read. Attributes: `line` and `column` (both from 1), `reason`."""

    def __init__(self, line: int, column: int, reason: str):
        """Remember the place and the reason."""
        super().__init__(f"{line}:{column}: {reason}")
        self.line, self.column, self.reason = line, column, reason


@dataclass
class Document:
    """A parsed document: its value and where each key or list item stands (line, column; from 1)."""

    value: Any
    places: dict[Path, tuple[int, int]] = field(default_factory=dict)


class _Loader(yaml.CSafeLoader):
    """Every plain scalar stays a string; see `_scalar`."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        """The tag of an untagged node, without PyYAML's search through rules of which there are none."""
        return _DEFAULT_TAGS[kind]


def parse(text: str) -> Document:
    """Parse one YAML document.

    Raises:
        YamlError: Not YAML, several documents, too large or deep, a repeated key, a tag or merge key.
    """
    if len(text.encode()) > MAX_BYTES:
        raise YamlError(1, 1, f"file is larger than {MAX_BYTES} bytes")
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise YamlError(line, column, error.problem or "not valid YAML") from None
    except yaml.YAMLError as error:
        raise YamlError(1, 1, str(error).splitlines()[0]) from None
    document = Document(None)
    document.value = _Builder(document).build(node, ()) if node is not None else None
    return document


def value_of(text: str) -> Any:
    """The value of a document, or None where the text is not one."""
    try:
        return parse(text).value
    except YamlError:
        return None


class _Builder:
    """Turns nodes into plain values and fills the places."""

    def __init__(self, document: Document):
        self.places = document.places
        self.nodes = 0

    def build(self, node: yaml.Node, path: Path) -> Any:
        self.nodes += 1
        if len(path) > MAX_DEPTH or self.nodes > MAX_NODES:
            raise _at(node, "the document is nested or repeated too deeply")
        if node.tag not in _TAGS:
            raise _at(node, f"tags such as {node.tag} are not allowed")
        self.places.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, i)) for i, item in enumerate(node.value)]
        return _scalar(node)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode):
                raise _at(key_node, "a key must be plain text")
            if key in result:
                first = self.places[(*path, key)][0]
                raise _at(key_node, f"{key}: duplicate key, first given in line {first}")
            self.places[(*path, key)] = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            result[key] = self.build(value_node, (*path, key))
        return result


def _at(node: yaml.Node, reason: str) -> YamlError:
    return YamlError(node.start_mark.line + 1, node.start_mark.column + 1, reason)


def _scalar(node: Any) -> Any:
    text: str = node.value
    if node.style:  # quoted or block text is never a number
        return text
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        if len(text) > MAX_DIGITS:
            raise _at(node, f"a number of more than {MAX_DIGITS} digits")
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _SPECIAL.fullmatch(text):
        return float(text.replace(".", ""))
    return text
