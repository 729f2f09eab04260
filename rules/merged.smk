"""Merged: base and adapter as one checkpoint, tensor by tensor.

INPUTS:  model, adapter
OUTPUTS: a model folder that plain transformers and vLLM load
"""


rule merged:
    """Merge the adapter into the base model."""
    input:
        unpack(inputs_of("merged")),
    output:
        f"{STORE}/merged/{{address}}.stamp",
    log:
        "logs/merged/{address}.log",
    threads: 2
    resources:
        mem_mb=4000,
    message:
        "{rule} {because:{wildcards.address}}"
    shell:
        "exec tunemake merged --address {wildcards.address:q} --log {log:q} --threads {threads}"
