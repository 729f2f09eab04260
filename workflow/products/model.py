"""model: the untrained model as a folder of links to the hub's cache or to the user's folder.

The manifest holds the SHA-256 of what each link leads to, so that every later job notices a change. A tiny
model that stands in for another is made here.
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
    if "stand_in" in job.slice:
        return _stand_in(job)
    files = job.sources
    if "hub" in job.slice:
        folder = fetch(job.slice["hub"], job.slice["revision"], weights=True)
        tokenizer_files(folder)
        files = model_files(folder)
    return link_files(files, job.out)


def _stand_in(job: Job) -> dict[str, Any]:
    from workflow.stand_in import write_stand_in

    write_stand_in(job.out, job.slice["stand_in"], job.sources)
    made = list(job.out.iterdir())
    return {"files": len(made), "bytes": sum(path.stat().st_size for path in made)}


def link_files(files: dict[str, Path], out: Path) -> dict[str, Any]:
    """Make a link to each file.

    Returns:
        Counts: number of files and their total size in bytes.
    """
    for name, path in files.items():
        (out / name).symlink_to(path.resolve())
    return {"files": len(files), "bytes": sum(path.stat().st_size for path in files.values())}
