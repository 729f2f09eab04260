"""Predictions: what a model answers to the test rows.

INPUTS:  shards of the test split, merged or untrained model
OUTPUTS: predictions.jsonl
"""


rule predictions:
    """Generate with vLLM, continuing where a killed run stopped."""
    input:
        unpack(inputs_of("predictions")),
    output:
        f"{STORE}/predictions/{{address}}.stamp",
    log:
        "logs/predictions/{address}.log",
    threads: workflow.cores
    resources:
        mem_mb=8000,
        gpu=gpus_for("predictions"),
    message:
        "{rule} {because:{wildcards.address}}"
    shell:
        "exec tunemake predictions --address {wildcards.address:q} --log {log:q} --threads {threads} --gpus {resources.gpu}"
