"""Likelihood: how likely a model finds the answers of the test rows.

INPUTS:  shards of the test rows with their answers, merged or untrained model
OUTPUTS: likelihood.jsonl
"""


rule likelihood:
    """Run the model over prompt and answer, one row at a time."""
    input:
        unpack(inputs_of("likelihood")),
    output:
        f"{STORE}/likelihood/{{address}}.stamp",
    log:
        "logs/likelihood/{address}.log",
    threads: workflow.cores
    resources:
        mem_mb=8000,
        gpu=gpus_for("likelihood"),
    message:
        "{rule} {because:{wildcards.address}}"
    shell:
        "exec tunemake likelihood --address {wildcards.address:q} --log {log:q} --threads {threads} --gpus {resources.gpu}"
