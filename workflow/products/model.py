"""model: the untrained model as a folder of links to the hub's cache or to the user's folder.

The manifest holds the SHA-256 of what each link leads to, so that every later job notices a change.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workflow.hub import fetch
from workflow.models import model_files, tokenizer_files
from workflow.store.build import Job


def make(job: Job) -> dict[str, Any]:
    """Link the model's files into `job.out`.

    Raises:
        BuildError: The hub refuses, or the model has pickles, remote code or no weights.
    """
    files = job.sources
    if "hub" in job.slice:
        folder = fetch(job.slice["hub"], job.slice["revision"], weights=True)
        tokenizer_files(folder)
        files = model_files(folder)
    return link_files(files, job.out)


def link_files(files: dict[str, Path], out: Path) -> dict[str, Any]:
    """Make a link to each file.

    Returns:
        Counts: number of files and their total size in bytes.
    """
    for name, path in files.items():
        (out / name).symlink_to(path.resolve())
    return {"files": len(files), "bytes": sum(path.stat().st_size for path in files.values())}
