"""Served: the trained model in vLLM's server, asked the recipe's questions.

INPUTS:  merged or untrained model, its tokenizer, the model before training
OUTPUTS: served.json, chat_template.jinja
"""


rule served:
    """Start the server, ask, compare, stop it."""
    input:
        unpack(inputs_of("served")),
    output:
        f"{STORE}/served/{{address}}.stamp",
    log:
        "logs/served/{address}.log",
    threads: workflow.cores
    resources:
        mem_mb=8000,
        gpu=gpus_for("served"),
    message:
        "{rule} {because:{wildcards.address}}"
    shell:
        "exec tunemake served --address {wildcards.address:q} --log {log:q} --threads {threads} --gpus {resources.gpu}"
