"""Where the Snakefile and its companions lie: at the root of a clone, or inside an installed package."""

from __future__ import annotations

from pathlib import Path

from workflow.errors import BuildError

_PACKAGE = Path(__file__).resolve().parent


def shared_folder() -> Path:
    """The folder with `Snakefile`, `rules/`, `profiles/` and `schemas/`.

    Raises:
        BuildError: There is none; the installation is damaged.
    """
    for folder in (_PACKAGE / "share", _PACKAGE.parent):
        if (folder / "Snakefile").is_file():
            return folder
    raise BuildError(f"{_PACKAGE}: no Snakefile came with the package; install tunemake again")


def snakefile() -> Path:
    """The Snakefile, for `include:` in a folder of the user's own."""
    return shared_folder() / "Snakefile"


def profile() -> Path:
    """The default profile's file."""
    return shared_folder() / "profiles" / "default" / "config.yaml"
