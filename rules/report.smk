"""Report: one page that shows all of it.

INPUTS:  every product of the recipe
OUTPUTS: report.html
"""


rule report:
    """Write the report, one self-contained HTML page."""
    input:
        unpack(inputs_of("report")),
    output:
        f"{STORE}/report/{{address}}.stamp",
    log:
        "logs/report/{address}.log",
    threads: 1
    resources:
        mem_mb=1000,
    message:
        "{rule} {because:{wildcards.address}}"
    shell:
        "exec tunemake report --address {wildcards.address:q} --log {log:q} --threads {threads}"
