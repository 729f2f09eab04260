"""Publish: show products in results/<recipe>/, files as copies and folders as links.

INPUTS:  the stamp of the product, and a note of the address that is to be shown
OUTPUTS: results/<recipe>/<name>; `snakemake --report` shows the report and its figures
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
        name="|".join(name for name in FOLDERS if name not in SHOWN),
    message:
        "results/{because:{wildcards.recipe}/{wildcards.name}}"
    shell:
        "exec tunemake publish --recipe {wildcards.recipe:q} --name {wildcards.name:q} "
        "--stamp {input.stamp:q} --log {log:q}"


use rule publish as publish_report with:
    output:
        report(
            update("results/{recipe}/{name}"),
            caption="captions/report.rst",
            category="{recipe}",
            labels={"what": "the whole report"},
        ),
    wildcard_constraints:
        name=r"report\.html",


use rule publish_folder as publish_figures with:
    output:
        report(
            directory("results/{recipe}/{name}"),
            patterns=["{figure}.svg"],
            caption="captions/figure.rst",
            category="{recipe}",
            labels={"what": "{figure}"},
        ),
    wildcard_constraints:
        name="figures",
