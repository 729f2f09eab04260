"""Voted: one answer per row from several draws.

INPUTS:  predictions, rows of the test split
OUTPUTS: voted.jsonl, submission.jsonl
"""


rule voted:
    """Extract the answers of all draws and vote."""
    input:
        unpack(inputs_of("voted")),
    output:
        f"{STORE}/voted/{{address}}.stamp",
    log:
        "logs/voted/{address}.log",
    threads: 2
    resources:
        mem_mb=1000,
    message:
        "{rule} {because:{wildcards.address}}"
    shell:
        "exec tunemake voted --address {wildcards.address:q} --log {log:q} --threads {threads}"
