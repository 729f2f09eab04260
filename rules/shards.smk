"""Shards: rows as token ids and label mask, by the one renderer.

INPUTS:  rows, tokenizer, prompt template
OUTPUTS: shard-*.safetensors, rendering.json
"""


rule shards:
    """Render and tokenize the rows of one split."""
    input:
        unpack(inputs_of("shards")),
    output:
        f"{STORE}/shards/{{address}}.stamp",
    log:
        "logs/shards/{address}.log",
    threads: 2
    resources:
        mem_mb=4000,
    message:
        "{rule} {because:{wildcards.address}}"
    shell:
        "exec tunemake shards --address {wildcards.address:q} --log {log:q} --threads {threads}"
