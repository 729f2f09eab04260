"""The prompt template's blocks as text, and the fields that each of them shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, TemplateSyntaxError, meta, nodes

from workflow.errors import BuildError

_GIVEN = frozenset({"range", "dict", "namespace", "loop"})


@dataclass(frozen=True)
class Block:
    """One block: its source as it stands in the template, and the names that it takes from a row."""

    source: str
    fields: frozenset[str]


def blocks_of(path: Path) -> dict[str, Block]:
    """Name -> block of a prompt template, which `workflow.prompts.PromptTemplate` has accepted.

    Nothing is run: the template is only cut and parsed.

    Raises:
        BuildError: One block stands in another, or a block's filter would do something else in a server.
    """
    environment = Environment(trim_blocks=True, lstrip_blocks=True)
    try:
        found = _sources(environment, path)
        return {name: Block(source, _fields(environment, source, path)) for name, source in found.items()}
    except TemplateSyntaxError as error:
        raise BuildError(f"{path}:{error.lineno}: {error.message}") from None


def _sources(environment: Environment, path: Path) -> dict[str, str]:
    """Source of each block, cut where the lexer sees its tags; white space around tags is cut already."""
    found: dict[str, str] = {}
    name, tag = None, list[str]()
    for _, kind, value in environment.lex(path.read_text(encoding="utf-8")):
        inside_tag = bool(tag) or kind == "block_begin"
        if inside_tag:
            tag.append(value)
        if kind == "block_end":
            words = "".join(tag).strip("{}%-+ \n\t").split()
            if words[0] == "block":
                if name:
                    raise BuildError(f"{path}: block {words[1]} stands in block {name}; take it out to serve")
                name = words[1]
                found[name] = ""
            elif words[0] == "endblock":
                name = None
            elif name:
                found[name] += "".join(tag)
            tag = []
        elif name and not inside_tag:
            found[name] += value
    return found


def _fields(environment: Environment, source: str, path: Path) -> frozenset[str]:
    tree = environment.parse(source)
    if any(node.name == "tojson" for node in tree.find_all(nodes.Filter)):
        raise BuildError(
            f"{path}: the filter tojson writes other text in a server than in training; "
            "put the JSON into the rows to serve this recipe"
        )
    return frozenset(meta.find_undeclared_variables(tree)) - _GIVEN
