"""Metrics of generated texts, each as its reference implementation computes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from workflow.metrics.chinese import ROUGE_JIEBA, Bleu4Chars, RougeJieba
from workflow.metrics.matching import F1, ExactMatch, NumericMatch
from workflow.metrics.metric import Chosen, Metric
from workflow.metrics.overlap import Bleu, Chrf
from workflow.metrics.own import Own
from workflow.metrics.rouge import ROUGE, Rouge
from workflow.metrics.structure import JsonValid, SchemaValid

COMPARED: dict[str, Callable[[Chosen], Metric]] = {
    "exact_match": ExactMatch,
    "numeric_match": NumericMatch,
    "f1": F1,
    "bleu": Bleu,
    "chrf": Chrf,
    **{name: partial(Rouge, name) for name in ROUGE},
    "bleu4_chars": Bleu4Chars,
    **{name: partial(RougeJieba, name) for name in ROUGE_JIEBA},
}
"""Metrics of a text against references."""


def metrics_of(chosen: Mapping[str, Any], sources: Mapping[str, Path]) -> list[Metric]:
    """The metrics of texts that a slice asks for; accuracy and perplexity are not of texts.

    Args:
        chosen: The slice of `scores`.
        sources: `answer_schema` is the JSON Schema file, where there is one.

    Raises:
        BuildError: A package or a schema is missing or wrong.
    """
    options = Chosen(chosen["stem"], chosen["tokenize"], chosen["references"])
    found = [COMPARED[name](options) for name in chosen["metrics"] if name in COMPARED]
    if "json_valid" in chosen["metrics"]:
        found.append(JsonValid())
    if "schema_valid" in chosen["metrics"]:
        found.append(SchemaValid(sources["answer_schema"]))
    return found + [Own(name, version) for name, version in chosen["own"].items()]
