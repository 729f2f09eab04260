"""Checkpoints that can be trusted: one counts only with a manifest, written last, that still holds.

transformers takes the highest number, half-written or not. Nothing of a checkpoint is read before every
byte of it was compared with the manifest, so that no foreign pickle can slip in.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from workflow.errors import BuildError
from workflow.progress import say
from workflow.recipe.optimisation import Validation
from workflow.store.address import canonical
from workflow.store.files import digests_of, files_in, read_json, remove_tree, write_atomic
from workflow.training.verdict import losses_of, verdict

MANIFEST = "tunemake.json"


def seal_checkpoint(checkpoint: Path) -> None:
    """Flush a complete checkpoint to disk and write its manifest."""
    for path in files_in(checkpoint):
        with path.open("rb") as file:
            os.fsync(file.fileno())
    write_atomic(checkpoint / MANIFEST, canonical(digests_of(checkpoint)))


def is_whole(checkpoint: Path) -> bool:
    """Whether every file of a checkpoint is as its manifest says."""
    if not (checkpoint / MANIFEST).is_file():
        return False
    found = digests_of(checkpoint)
    found.pop(MANIFEST)
    try:
        return bool(found == read_json(checkpoint / MANIFEST))
    except BuildError:
        return False  # the manifest itself is damaged


def numbered(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, newest first."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)


def at_step(folder: Path, step: int) -> Path:
    """The checkpoint of an optimizer step."""
    return folder / f"checkpoint-{step}"


def newest_whole(folder: Path, needs: Callable[[Path], Path | None] = lambda _: None) -> Path | None:
    """The newest checkpoint that can be trusted; broken newer ones are deleted, and that is said.

    Args:
        folder: Where they are.
        needs: Another checkpoint that one cannot do without, as that with the best weights so far.
    """
    for checkpoint in numbered(folder):
        if is_whole(checkpoint):
            other = needs(checkpoint)
            if other in (None, checkpoint) or is_whole(other):
                return checkpoint
            say(f"adapter: {checkpoint.name} is left out, {other.name} that it needs is incomplete")
        else:
            say(f"adapter: {checkpoint.name} is incomplete and left out")
        remove_tree(checkpoint)
    return None


def rotate(folder: Path, keep: int, needs: Callable[[Path], Path | None] = lambda _: None) -> None:
    """Delete all but the newest `keep` checkpoints and those that they need."""
    newest = numbered(folder)[:keep]
    kept = {*newest, *(needs(checkpoint) for checkpoint in newest)}
    for checkpoint in numbered(folder)[keep:]:
        if checkpoint not in kept:
            remove_tree(checkpoint)


def best_of(validation: Validation | None, folder: Path) -> Callable[[Path], Path | None]:
    """Function: checkpoint -> that with the best weights so far, which the product may be made from."""

    def needed(checkpoint: Path) -> Path | None:
        if validation is None or validation.keep == "last":
            return None
        best = verdict(losses_of(checkpoint), validation).best
        return at_step(folder, best) if best is not None else None

    return needed
