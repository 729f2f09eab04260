"""The command line: one sub-command per product for the rules, the rest for people."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from workflow import __version__
from workflow.cli import comparing, explaining, keeping, making, serving, writing
from workflow.errors import BuildError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        Exit status: 0, or 2 after an expected error, which is one message on stderr.
    """
    from workflow.disk import one_line

    options = _parsed(list(sys.argv[1:] if arguments is None else arguments))
    try:
        with one_line(Path.cwd()):
            options.run(options)
    except BuildError as error:
        from workflow.progress import say

        say(f"Error: {error}")
        return 2
    return 0


def _parsed(arguments: list[str]) -> argparse.Namespace:
    """The options; what stands behind `--` goes as it is to a command that passes flags on."""
    parser, end = _parser(), arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_args(arguments[:end])
    if behind := arguments[end + 1 :]:
        if not hasattr(options, "flags"):
            parser.error(f"nothing can stand behind --: {' '.join(behind)}")
        options.flags = behind
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tunemake", description=__import__("workflow").__doc__)
    parser.add_argument("--version", action="version", version=f"tunemake {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for part in (writing, explaining, comparing, serving, keeping, making):
        part.add_to(commands)
    return parser
