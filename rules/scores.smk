"""Scores: what the predictions are worth.

INPUTS:  voted, predictions (draws, greedy, base), rows of the test split
OUTPUTS: scores.json, items.jsonl
"""


rule scores:
    """Measure accuracies with intervals, and test the differences."""
    input:
        unpack(inputs_of("scores")),
    output:
        f"{STORE}/scores/{{address}}.stamp",
    log:
        "logs/scores/{address}.log",
    threads: 2
    resources:
        mem_mb=1000,
    message:
        "{rule} {because:{wildcards.address}}"
    shell:
        "exec tunemake scores --address {wildcards.address:q} --log {log:q} --threads {threads}"
