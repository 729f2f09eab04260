"""The scores of ChatGLM-6B's P-tuning scripts, digit for digit, so that published rows can be compared.

https://github.com/THUDM/ChatGLM-6B/blob/main/ptuning/main.py (compute_metrics): each is in percent and
rounded to four digits per text, and the figure is the mean.
"""

from __future__ import annotations

import warnings
from functools import cache, lru_cache
from importlib.metadata import version
from typing import Any

from workflow.errors import BuildError
from workflow.metrics.metric import Chosen, Compared

ROUGE_JIEBA = {"rouge1_jieba": "rouge-1", "rouge2_jieba": "rouge-2", "rougeL_jieba": "rouge-l"}
"""Metric -> its name in rouge-chinese."""


class Bleu4Chars(Compared):
    """BLEU-4 of a sentence over characters, smoothing method 3 of Chen & Cherry (2014)."""

    def __init__(self, chosen: Chosen):
        """Compare as `chosen` says."""
        from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

        signature = f"mean of sentence BLEU-4 of characters|smooth:method3|nltk:{version('nltk')}"
        super().__init__("bleu4_chars", signature, chosen.references)
        self._bleu, self._smooth = sentence_bleu, SmoothingFunction().method3

    def compare(self, reference: str, text: str) -> float:
        """BLEU-4; an empty text, or any against an empty reference, has 0."""
        if not text or not reference:
            return 0.0
        found = self._bleu([list(reference)], list(text), smoothing_function=self._smooth)
        return min(1.0, round(float(found) * 100, 4) / 100)


class RougeJieba(Compared):
    """F of rouge-chinese over the words that jieba finds."""

    def __init__(self, name: str, chosen: Chosen):
        """Take one of `ROUGE_JIEBA`.

        Raises:
            BuildError: The extra `zh` is not installed.
        """
        segmenter()
        made = f"rouge-chinese:{version('rouge-chinese')}|jieba:{version('jieba')}"
        super().__init__(name, f"mean F|words by jieba|{made}", chosen.references)

    def compare(self, reference: str, text: str) -> float:
        """F; a text without words, where rouge-chinese fails, has 0."""
        return min(1.0, round(_rouge(reference, text).get(ROUGE_JIEBA[self.name], 0.0) * 100, 4) / 100)


@lru_cache(64)
def _rouge(reference: str, text: str) -> dict[str, float]:
    """F of each of rouge-chinese's metrics; empty where one text has no words."""
    if not reference.strip() or not text.strip():
        return {}
    from rouge_chinese import Rouge

    given, wanted = (" ".join(segmenter().cut(one)) for one in (text, reference))
    try:
        return {name: float(found["f"]) for name, found in Rouge().get_scores(given, wanted)[0].items()}
    except (ValueError, ZeroDivisionError):  # "Hypothesis is empty.": nothing is left of it
        return {}


@cache
def segmenter() -> Any:
    """jieba's segmenter with its own dictionary, read anew: its cache in /tmp could be anybody's.

    Raises:
        BuildError: jieba or rouge-chinese is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of how they are written
            import jieba
            import rouge_chinese  # noqa: F401
    except ImportError as error:
        raise BuildError(
            f"rouge1_jieba, rouge2_jieba and rougeL_jieba need {error.name}: pip install 'tunemake[zh]'"
        ) from None
    found = jieba.Tokenizer()
    found.FREQ, found.total = found.gen_pfdict(found.get_dict_file())
    found.initialized = True
    return found
