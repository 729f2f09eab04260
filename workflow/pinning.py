"""Writing the digests of a recipe's data files into it, comments and layout kept: `tunemake lock --data`."""

from __future__ import annotations

from pathlib import Path

from workflow.errors import BuildError
from workflow.recipe import load_recipe, yaml12
from workflow.recipe.dataset import sources_of
from workflow.store.address import sha256_of
from workflow.store.files import write_atomic


def pin_data(path: Path) -> list[str]:
    """Write `sha256` beside every data file of the recipe at `path` that lacks one.

    From then on a build refuses another file. That is for recipes that leave the machine: while data are
    being edited it would only stand in the way, so nothing does it unasked.

    Returns:
        One line per file.

    Raises:
        BuildError: The recipe is wrong, a file is missing, or the recipe is written in a way that cannot be
            added to.
    """
    said = []
    for place, source in list(sources_of(load_recipe(path).dataset)):
        name = ".".join(("dataset", *place))
        if not isinstance(source.path, str):
            said.append(f"{path}: {name} is of the hub, which its revision pins")
            continue
        data = path.parent / source.path
        if source.sha256:
            said.append(f"{path}: {name} has its sha256 already")
            continue
        if not data.is_file():
            raise BuildError(f"{data}: no such file; put it there or correct the recipe")
        digest = sha256_of(data)
        text = _with_digest(path, path.read_bytes().decode(), ("dataset", *place), digest)
        write_atomic(path, text.encode(), path.stat().st_mode & 0o777)
        said.append(f"{path}: {name} now has sha256 {digest}")
    return said


def _with_digest(path: Path, text: str, place: tuple[str, ...], digest: str) -> str:
    """`text` with the digest in front of the key `path` of a source, on a line of its own or in braces."""
    bom = text.startswith("\ufeff")
    before = yaml12.parse(text[bom:])
    line, column = before.places[(*place, "path")]
    lines = text[bom:].splitlines(keepends=True)
    start = bom + sum(map(len, lines[: line - 1])) + column - 1
    end = "\r\n" if lines[line - 1].endswith("\r\n") else "\n"
    written = digest if yaml12.parse(digest).value == digest else f"'{digest}'"  # digits are a number
    source = before.value
    for name in place:
        source = source[name]
    source["sha256"] = digest
    for between in (end + " " * (column - 1), ", "):
        changed = f"{text[:start]}sha256: {written}{between}{text[start:]}"
        if yaml12.value_of(changed[bom:]) == before.value:
            return changed
    raise BuildError(f"{path}:{line}:{column}: write `sha256: {written}` beside this yourself")
