"""What scores.json says of each system, metric and test."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from workflow.record import Result


class Measured(Result):
    """Accuracy over the scored rows with its 95 % bootstrap interval (percentile method, over problems)."""

    accuracy: float = Field(
        description="Share of right answers, 0 to 1; an abstention is wrong. `draws`: mean over draws. Over "
        "rows, or with `weigh: problems` over problems.",
        ge=0,
        le=1,
    )
    low: float = Field(description="2.5 % quantile of the accuracy over resampled problems.", ge=0, le=1)
    high: float = Field(description="97.5 % quantile of the accuracy over resampled problems.", ge=0, le=1)
    n: int = Field(description="Rows measured: those with a known gold answer.", ge=1)
    parse_rate: float | None = Field(
        description="Share of the n rows' texts with a valid answer; `voted`: share of rows with a voted "
        "answer; null for majority_class, which reads no text.",
        ge=0,
        le=1,
    )
    length_rate: float | None = Field(
        description="Share of the n rows' texts that max_tokens ended (finish_reason `length`); `voted`: of "
        "the texts behind the votes; null for majority_class.",
        ge=0,
        le=1,
    )


class Test(Result):
    """Paired test of two systems on the same rows."""

    __test__: ClassVar[bool] = False  # the name makes pytest want to collect it

    better: int = Field(description="Scored rows that only the first-named system answers right.", ge=0)
    worse: int = Field(description="Scored rows that only the second-named system answers right.", ge=0)
    difference: float = Field(description="Accuracy of the first-named system less the other's.", ge=-1, le=1)
    low: float = Field(description="2.5 % quantile of the difference over resampled problems.", ge=-1, le=1)
    high: float = Field(description="97.5 % quantile of the same.", ge=-1, le=1)
    method: Literal["mcnemar", "bootstrap"] = Field(
        description="mcnemar: exact, two-sided, where every row is a problem of its own; bootstrap: paired, "
        "over problems, where rows of one problem are not independent."
    )
    p: float = Field(
        description="mcnemar: probability of a split of better + worse rows at least this uneven, were each "
        "as likely to fall on either side; 1 when the two never differ, 0 below 1e-308. bootstrap: twice the "
        "share of resamples in which the difference is 0 or on its other side.",
        ge=0,
        le=1,
    )


class TextCounts(Result):
    """The texts of a system over all rows, scored or not, and how many of them are no proper answers."""

    texts: int = Field(description="Texts: one per row, or one per draw.", ge=0)
    empty: int = Field(description="Texts of white space alone, or of nothing.", ge=0)
    cut: int = Field(description="Texts that max_tokens ended (finish_reason `length`).", ge=0)
    loops: int = Field(
        description="Texts that end in one unit of at most 200 characters, four times or more and at least "
        "32 characters in all.",
        ge=0,
    )
    abstained: int | None = Field(description="Texts without a valid answer; null where none is read.", ge=0)


class TextMeasured(Result):
    """A metric over the problems, with its 95 % bootstrap interval (percentiles, over problems)."""

    mean: float = Field(
        description="The figure, 0 to 1: the mean over a row's draws, over the rows of a problem, and over "
        "problems; or that of all texts together (`of: corpus`).",
        ge=0,
        le=1,
    )
    low: float = Field(description="2.5 % quantile of the figure over resampled problems.", ge=0, le=1)
    high: float = Field(description="97.5 % quantile of the figure over resampled problems.", ge=0, le=1)
    n: int = Field(description="Problems measured; a row that belongs to none is one.", ge=1)
    length_rate: float = Field(
        description="Share of the texts that max_tokens ended (finish_reason `length`).", ge=0, le=1
    )


class TextTest(Result):
    """Paired bootstrap test of two systems, over problems."""

    difference: float = Field(description="Figure of the first-named system less the other's.")
    low: float = Field(description="2.5 % quantile of the difference over resampled problems.")
    high: float = Field(description="97.5 % quantile of the same.")
    p: float = Field(
        description="Twice the share of resamples in which the difference is 0 or on its other side; at "
        "least 2 / (resamples + 1).",
        ge=0,
        le=1,
    )


class TextMetric(Result):
    """One metric of texts."""

    signature: str = Field(description="What was computed, by which version of what.")
    of: Literal["mean", "corpus"] = Field(
        description="mean: of what single texts are worth; corpus: of all texts together, as BLEU is defined."
    )
    systems: dict[str, TextMeasured] = Field(
        description="base: the untuned model, greedy (only when compared); greedy: the recipe's model, "
        "greedy; draws: mean over all draws."
    )
    tests: dict[str, TextTest] = Field(description="greedy_vs_base: the gain of tuning.")


class Likely(Result):
    """Loss of one model over the known answers, with its 95 % bootstrap interval (over problems)."""

    loss: float = Field(description="Mean negative log-likelihood per token, in nats; lower is better.", ge=0)
    low: float = Field(description="2.5 % quantile of the loss over resampled problems.", ge=0)
    high: float = Field(description="97.5 % quantile of the same.", ge=0)
    perplexity: float = Field(description="e to the loss; only models of one tokenizer compare.")


class Likelihood(Result):
    """What models make of the known answers, tokenized as training rows are."""

    rows: int = Field(description="Rows with an answer, within the limits of training.", ge=1)
    problems: int = Field(description="Problems that they belong to.", ge=1)
    tokens: int = Field(description="Tokens that count: the answers' and their stop tokens.", ge=1)
    systems: dict[str, Likely] = Field(description="greedy: the recipe's model; base: the untuned one.")
    tests: dict[str, TextTest] = Field(
        description="greedy_vs_base: loss of the recipe's model less that of the base; below 0 is a gain."
    )
