"""Review: answers of two arms side by side, for people who judge without knowing which is which.

INPUTS:  greedy predictions of both arms, rows of the test split
OUTPUTS: review.csv, review.html; key.json, which is not published
"""


rule review:
    """Write the blind sheet."""
    input:
        unpack(inputs_of("review")),
    output:
        f"{STORE}/review/{{address}}.stamp",
    log:
        "logs/review/{address}.log",
    threads: 1
    resources:
        mem_mb=1000,
    message:
        "{rule} {because:{wildcards.address}}"
    shell:
        "exec tunemake review --address {wildcards.address:q} --log {log:q} --threads {threads}"
