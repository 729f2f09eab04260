"""A first recipe to edit, and what a folder of the user's own needs to build it: `tunemake new`."""

from __future__ import annotations

import json
import re
from pathlib import Path

from workflow.errors import BuildError
from workflow.recipe.load import NAME, RESERVED
from workflow.schemas import schema
from workflow.shared_files import profile
from workflow.store.files import write_atomic

RECIPE = """\
# yaml-language-server: $schema=../schemas/recipe.schema.json
# {name}: what is wanted. Paths are relative to this file. All fields: docs/fields.md
# Validate with `tunemake check recipes/{name}.yaml`, build with
# `snakemake results/{name}/voted.jsonl --cores all`; first, in a minute and without a GPU, prove it with
# `snakemake results/rehearsal/{name}/voted.jsonl --cores all`.

dataset:
  train:
    path: data/{name}/train.jsonl   # or .json, .csv, .tsv, .parquet, .gz; or {{hub: id, revision: commit}}
    format: columns                 # or alpaca, sharegpt, messages, gsm8k, ...: docs/data.md
    prompt: {{question: question}}    # template variable: column; what system and user blocks may see
    target: {{answer: answer}}        # what only the assistant block may see
    gold: label                     # the right answer, for scoring
    # id: id                        # a unique id per row; without it a digest of the row
    # sha256: ...                   # the build stops when the file has another digest
    # bad_rows: 0                   # number of invalid rows that may be left out
  split: {{test: 0.1, seed: 0}}       # test on a tenth; or give `test:` with a file, as `train:`

prompt:
  template: prompts/{name}.jinja
  max_length: 1024                  # tokens, prompt and answer
  overflow: error                   # or drop, truncate_left, truncate_right; always counted

# gate: {{max_cut: 0.01, max_duplicates: 0.01, max_contaminated: 0}}   # shares; above one the build stops

model:
  base: Qwen/Qwen2.5-0.5B-Instruct  # hub id, or a local folder (then without revision)
  revision: unpinned                # `tunemake lock recipes/{name}.yaml` writes the commit
  dtype: bfloat16                   # or float16, float32

tuning:
  method: lora                      # or `full`, which has no further fields
  r: 8                              # rank
  lora_alpha: 16                    # updates are scaled by lora_alpha / r
  lora_dropout: 0.05
  target_modules: all-linear        # or names, e.g. [q_proj, v_proj]

training:
  epochs: 1
  learning_rate: 1e-4
  lr_scheduler: {{name: cosine, warmup_ratio: 0.03}}  # or linear, constant, ...
  batch_size: 16                    # rows per optimizer step, over all GPUs
  seed: 42

# deepspeed: {{zero_stage: 2}}        # 1 shards optimizer state over GPUs, 2 also gradients, 3 also weights

sampling:
  n: 5                              # draws per row, voted on below
  temperature: 0.7
  top_p: 0.9
  max_tokens: 256                   # per answer
  seed: 0

voting:
  answer:
    pattern: '(?i)answer:\\s*([A-Z0-9]+)'   # RE2, one group: the answer
    match: last
  ties: first                       # or abstain

scoring:
  compare: [base]                   # also ask the untuned model, and test the difference

# serving:                          # what the served model is asked: results/<recipe>/served.json
#   questions:
#     - {{ask: Who are you?, expect: my name}}   # RE2 pattern that the reply must hold

# execution:                        # how it runs; changes no result's address
#   processes: 1                    # GPUs for training; default: all
#   micro_batch: 4                  # rows per forward pass; default: batch_size / processes
#   gradient_checkpointing: true    # less memory, slower
"""

PROMPT = """\
{% block system %}Think, then end with a line such as "Answer: B".{% endblock %}
{% block user %}{{ question }}{% endblock %}
{% block assistant %}{{ answer }}{% endblock %}
"""

SNAKEFILE = """\
from workflow.shared_files import snakefile


include: str(snakefile())


rule everything:  # what a bare `snakemake` builds: it takes no default from an included file
    input:
        rules.all.input,
"""


def new_recipe(name: str, folder: Path) -> list[Path]:
    """Write a commented recipe and its prompt template; in a folder of the user's own also a Snakefile.

    Returns:
        The files written.

    Raises:
        BuildError: The name is not allowed, or one of the two files is there already; nothing is written.
    """
    if not re.fullmatch(NAME, name) or name in RESERVED:
        raise BuildError(f"{name!r} is not a recipe name: use letters, digits, '.', '_' and '-'")
    files = {
        folder / "recipes" / f"{name}.yaml": RECIPE.format(name=name),
        folder / "recipes" / "prompts" / f"{name}.jinja": PROMPT,
    }
    for path in files:
        if path.exists():
            raise BuildError(f"{path}: exists; choose another name or delete it")
    files |= _surroundings(folder)
    for path, text in files.items():
        write_atomic(path, text.encode())
    return list(files)


def _surroundings(folder: Path) -> dict[Path, str]:
    """What a folder without a Snakefile lacks: path -> text."""
    if (folder / "Snakefile").exists():
        return {}
    lacking = {
        folder / "Snakefile": SNAKEFILE,
        folder / "profiles" / "default" / "config.yaml": profile().read_text(),
        folder / "schemas" / "recipe.schema.json": json.dumps(schema("recipe"), indent=2) + "\n",
    }
    return {path: text for path, text in lacking.items() if not path.exists()}
