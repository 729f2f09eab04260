"""Rows: the data of a recipe, one product per split, and what two splits have in common.

INPUTS:  data files (found through the plan)
OUTPUTS: rows.jsonl, cuts.json; overlap.json
"""


rule rows:
    """Read and validate the rows of one split."""
    input:
        unpack(inputs_of("rows")),
    output:
        f"{STORE}/rows/{{address}}.stamp",
    log:
        "logs/rows/{address}.log",
    threads: 2
    resources:
        mem_mb=2000,
    message:
        "{rule} {because:{wildcards.address}}"
    shell:
        "exec tunemake rows --address {wildcards.address:q} --log {log:q} --threads {threads}"


rule mixture:
    """Put the rows of several sources together; leave out duplicates, take a sample."""
    input:
        unpack(inputs_of("mixture")),
    output:
        f"{STORE}/mixture/{{address}}.stamp",
    log:
        "logs/mixture/{address}.log",
    threads: 1
    resources:
        mem_mb=2000,
    message:
        "{rule} {because:{wildcards.address}}"
    shell:
        "exec tunemake mixture --address {wildcards.address:q} --log {log:q} --threads {threads}"


rule overlap:
    """Report rows that training and test data share."""
    input:
        unpack(inputs_of("overlap")),
    output:
        f"{STORE}/overlap/{{address}}.stamp",
    log:
        "logs/overlap/{address}.log",
    threads: 1
    resources:
        mem_mb=2000,
    message:
        "{rule} {because:{wildcards.address}}"
    shell:
        "exec tunemake overlap --address {wildcards.address:q} --log {log:q} --threads {threads}"
