"""Model: the untrained model and its tokenizer, from a hub by commit or from a folder.

INPUTS:  hub repository or model folder (found through the plan)
OUTPUTS: links to the model's files; copies of the tokenizer's
"""


localrules:
    model,
    tokenizer,


rule model:
    """Fetch the untrained model into the hub's cache, or check the user's folder."""
    input:
        unpack(inputs_of("model")),
    output:
        f"{STORE}/model/{{address}}.stamp",
    log:
        "logs/model/{address}.log",
    threads: 1
    resources:
        mem_mb=1000,
    message:
        "{rule} {because:{wildcards.address}}"
    shell:
        "exec tunemake model --address {wildcards.address:q} --log {log:q} --threads {threads}"


rule tokenizer:
    """Fetch the tokenizer's files; a hub model's weights are not needed for them."""
    input:
        unpack(inputs_of("tokenizer")),
    output:
        f"{STORE}/tokenizer/{{address}}.stamp",
    log:
        "logs/tokenizer/{address}.log",
    threads: 1
    resources:
        mem_mb=1000,
    message:
        "{rule} {because:{wildcards.address}}"
    shell:
        "exec tunemake tokenizer --address {wildcards.address:q} --log {log:q} --threads {threads}"
