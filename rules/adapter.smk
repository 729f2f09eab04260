"""Adapter: the trained weights.

INPUTS:  shards of the training split, model
OUTPUTS: adapter (or, for full fine-tuning, the whole model), loss.jsonl, training.json
"""


rule adapter:
    """Train under torchrun with transformers, PEFT and DeepSpeed."""
    input:
        unpack(inputs_of("adapter")),
    output:
        f"{STORE}/adapter/{{address}}.stamp",
    log:
        "logs/adapter/{address}.log",
    threads: workflow.cores
    resources:
        mem_mb=8000,
        gpu=gpus_for("adapter"),
    message:
        "{rule} {because:{wildcards.address}}"
    shell:
        "exec tunemake adapter --address {wildcards.address:q} --log {log:q} --threads {threads} --gpus {resources.gpu}"
