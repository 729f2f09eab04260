"""Publish: show products in results/<recipe>/, files as copies and folders as links.

INPUTS:  the stamp of the product, and a note of the address that is to be shown
OUTPUTS: results/<recipe>/<name>
"""


rule publish:
    """Copy one file of a product to results/; the old one stays until the new one is whole."""
    input:
        unpack(published_from),
    output:
        update("results/{recipe}/{name}"),
    log:
        "logs/publish/{recipe}/{name}.log",
    message:
        "results/{because:{wildcards.recipe}/{wildcards.name}}"
    shell:
        "exec tunemake publish --recipe {wildcards.recipe:q} --name {wildcards.name:q} "
        "--stamp {input.stamp:q} --log {log:q}"


rule publish_folder:
    """Link the folder of a product in results/."""
    input:
        unpack(published_from),
    output:
        directory("results/{recipe}/{name}"),
    log:
        "logs/publish/{recipe}/{name}.log",
    wildcard_constraints:
        name="|".join(FOLDERS),
    message:
        "results/{because:{wildcards.recipe}/{wildcards.name}}"
    shell:
        "exec tunemake publish --recipe {wildcards.recipe:q} --name {wildcards.name:q} "
        "--stamp {input.stamp:q} --log {log:q}"
