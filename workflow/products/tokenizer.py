"""tokenizer: the small files that rendering needs; of a hub model they come without its weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from workflow.hub import fetch
from workflow.models import tokenizer_files
from workflow.store.build import Job


def make(job: Job) -> dict[str, Any]:
    """Copy the tokenizer's files into `job.out`.

    Raises:
        BuildError: The hub refuses, or there is no tokenizer.
    """
    files: dict[str, Path] = job.sources
    if "hub" in job.slice:
        files = tokenizer_files(fetch(job.slice["hub"], job.slice["revision"], weights=False))
    for name, path in files.items():
        shutil.copyfile(path, job.out / name)
    return {"files": len(files)}
