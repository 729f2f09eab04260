"""tunemake: from a recipe to voted scores.

    snakemake results/<recipe>/voted.jsonl --cores 8
    snakemake results/rehearsal/<recipe>/voted.jsonl --cores 2    # the same made small, without a GPU

Snakemake knows two kinds of files: stamps in the store, one per product, and what is published in
results/. What is made, and from what, is decided in workflow/graph.py; each rule runs one command.
"""

import gc
import sys
from pathlib import Path
from shlex import quote

from snakemake.resources import Resource
from workflow.devices import visible_gpus
from workflow.settle import (
    FOLDERS,
    PUBLISHED,
    default_targets,
    drawn,
    gpus_for,
    inputs_of,
    published_from,
)
from workflow.show import closing
from workflow.store.store import Store
from workflow.why import because

gc.set_threshold(
    200_000, 50, 100
)  # a graph of thousands of jobs is drawn in a quarter less time

STORE = str(Store.here().root)
SHOWN = ["report.html", "figures"]

# Jobs find `tunemake` beside the Python that runs Snakemake, whether or not the environment is active. What a
# job starts is known by its mark (workflow/death.py): `$$` is its process, the shell only becomes it.
shell.prefix(
    f"export TUNEMAKE_JOB=$$; PATH={quote(str(Path(sys.executable).parent))}:$PATH; "
)

# Two GPU jobs must not start together: unless the user says otherwise, there are as many as we see.
workflow.global_resources.setdefault("gpu", Resource("gpu", len(visible_gpus())))


# Used with `--software-deployment-method apptainer` only; there the environment must be visible inside.
container: "docker://python:3.11"


wildcard_constraints:
    address="[0-9a-f]{32}",
    recipe=r"(rehearsal/)?(experiments/{0}(/{0})?|{0})".format(
        "[A-Za-z0-9][A-Za-z0-9._-]*"
    ),
    name="|".join(
        name.replace(".", r"\.")
        for name in PUBLISHED
        if name not in (*FOLDERS, *SHOWN)
    ),


localrules:
    all,
    publish,
    publish_folder,
    publish_report,
    publish_figures,


rule all:
    """The demo, or every recipe of a folder that has no demo."""
    input:
        default_targets,


include: "rules/publish.smk"
include: "rules/model.smk"
include: "rules/rows.smk"
include: "rules/shards.smk"
include: "rules/adapter.smk"
include: "rules/merged.smk"
include: "rules/predictions.smk"
include: "rules/likelihood.smk"
include: "rules/voted.smk"
include: "rules/scores.smk"
include: "rules/report.smk"
include: "rules/review.smk"
include: "rules/experiment.smk"
include: "rules/served.smk"


onsuccess:
    print(closing(drawn()))
