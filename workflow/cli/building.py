"""Building on behalf of another command, as a user would: by Snakemake, in this folder."""

from __future__ import annotations

import signal
import subprocess
import sys

from workflow.death import die_with_parent
from workflow.errors import BuildError


def build(targets: list[str]) -> None:
    """Run Snakemake; what it prints goes to stderr, as this command's own output is something else.

    Raises:
        BuildError: It failed, and has said why.
    """
    command = [sys.executable, "-m", "snakemake", *targets]
    with subprocess.Popen(command, stdout=sys.stderr, preexec_fn=die_with_parent) as run:
        try:
            status = run.wait()
        except KeyboardInterrupt:
            run.send_signal(signal.SIGTERM)  # after a Ctrl-C it has had the terminal's signal as well
            raise
    if status:
        raise BuildError(f"the build of {targets[0]} failed, see above")
