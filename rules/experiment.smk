"""Experiment: what the arms' scores say of the question, each item of the test rows paired.

INPUTS:  scores, training and shards of every arm; the filled-in review sheet
OUTPUTS: report.html, experiment.json
"""


rule experiment:
    """Compare the arms, and write the page that says what it proves."""
    input:
        unpack(inputs_of("experiment")),
    output:
        f"{STORE}/experiment/{{address}}.stamp",
    log:
        "logs/experiment/{address}.log",
    threads: 1
    resources:
        mem_mb=1000,
    message:
        "{rule} {because:{wildcards.address}}"
    shell:
        "exec tunemake experiment --address {wildcards.address:q} --log {log:q} --threads {threads}"
