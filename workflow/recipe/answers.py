"""Recipe sections that say how answers are drawn, voted and scored."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Discriminator, Field, Tag, model_validator

from workflow.normalising import normalised
from workflow.patterns import check_pattern
from workflow.recipe.engines import Constraint, Endpoint, Engine, Transformers, Vllm
from workflow.recipe.leaf import SOURCE, Section, leaf

MetricName = Literal[
    "accuracy",
    "exact_match",
    "numeric_match",
    "f1",
    "bleu",
    "chrf",
    "rouge1",
    "rouge2",
    "rougeL",
    "rougeLsum",
    "json_valid",
    "schema_valid",
    "bleu4_chars",
    "rouge1_jieba",
    "rouge2_jieba",
    "rougeL_jieba",
    "perplexity",
]


def _kind(weights: Any) -> str:
    """Which of the two weights are, so that a mistake is explained as one of its kind."""
    return "given" if isinstance(weights, dict) else "measured"


Weights = Annotated[
    Annotated[dict[str, Annotated[float, Field(gt=0)]], Tag("given")]
    | Annotated[Literal["accuracy", "logprob"], Tag("measured")],
    Discriminator(_kind),
]
OWN = "own"
"""Voter: this recipe's own prompt template."""


class Sampling(Section):
    """How the model is asked (named as in vLLM's SamplingParams)."""

    n: int = leaf(of=("predictions",), description="Draws per row.", gt=0, le=256)
    temperature: float = leaf(
        of=("predictions",), description="Softmax temperature; 0 is greedy.", ge=0, le=5
    )
    top_p: float = leaf(
        1.0, of=("predictions",), description="Nucleus: share of probability kept.", gt=0, le=1
    )
    top_k: int | None = leaf(
        None, of=("predictions",), description="Number of most likely tokens kept; default all.", gt=0
    )
    repetition_penalty: float = leaf(
        1.0, of=("predictions",), description="Penalty on tokens that occurred before; 1 is none.", gt=0
    )
    max_tokens: int = leaf(
        of=("predictions",), description="Longest answer in tokens, with its stop token.", gt=0
    )
    stop: list[str] = leaf(
        [], of=("predictions",), description="Strings that end an answer, besides the stop token."
    )
    seed: int = leaf(
        of=("predictions",), description="Seed from which each row's seed is derived.", ge=0, lt=2**63
    )
    logprobs: bool = leaf(
        False,
        of=("predictions",),
        description="Whether each draw records the mean log-probability of its tokens, as the model gives it "
        "before temperature, penalties and limits; with `constraint`, among what that allows.",
    )
    engine: Engine = Field(
        default=Vllm(name="vllm"),
        description="What generates. `transformers` takes long; it is for adapters that cannot be merged, "
        "and to compare with.",
    )
    constraint: Constraint | None = Field(
        default=None, description="What answers are held to while they are generated; left out: nothing."
    )

    @model_validator(mode="after")
    def _engine_can_hold_it(self) -> Sampling:
        engine, constraint = self.engine, self.constraint
        if constraint and isinstance(engine, Transformers):
            raise ValueError("the engine transformers holds answers to nothing: use vllm or drop constraint")
        chat = isinstance(engine, Endpoint) and engine.api == "chat"
        if constraint and chat and not constraint.json_schema:
            raise ValueError(
                "api: chat has a standard for constraint.json_schema alone; for choice and regex use "
                "`api: completions` of a vLLM server"
            )
        return self


class Answer(Section):
    """How an answer is read from a generated text."""

    pattern: str = leaf(
        of=("voted", "scores"),
        description="RE2 pattern with one group, the answer. Where the row has options only their "
        "letters count; anything else abstains.",
        min_length=1,
    )
    match: Literal["first", "last"] = leaf(
        "last", of=("voted", "scores"), description="Which match counts when there are several."
    )

    map: dict[str, str] = leaf(
        {},
        of=("voted", "scores"),
        description="Label word -> label, e.g. `{great: Positive, awful: Negative}`; words are compared in "
        "normal form, and an answer that is none of them abstains. Empty: answers stand for themselves.",
    )
    normalise: Literal["none", "text", "number"] = leaf(
        "none",
        of=("voted", "scores"),
        description="Normal form in which answers are compared, with each other and with gold ones. `text`: "
        "Unicode's NFKC, case, white space, punctuation at both ends; `number`: `$1,000.0` is 1000, and what "
        "is no number abstains.",
    )

    @model_validator(mode="after")
    def _one_group(self) -> Answer:
        check_pattern(self.pattern, groups=1)
        return self

    @model_validator(mode="after")
    def _words_are_told_apart(self) -> Answer:
        labels: dict[str, tuple[str, str]] = {}
        for word, label in self.map.items():
            form = normalised(word, self.normalise)
            if not form:
                raise ValueError(f"map: {word!r} is empty as `normalise: {self.normalise}`")
            other, meant = labels.setdefault(form, (word, label))
            if meant != label:
                raise ValueError(f"map: {other!r} and {word!r} are one word, but two labels")
        return self


class Voting(Section):
    """How the draws of a row become one answer."""

    answer: Answer = Field(description="How an answer is read from a generated text.")
    rule: Literal["majority", "weighted"] = leaf(
        "majority",
        of=("voted",),
        description="`majority`: the answer with most votes; `weighted`: with the largest sum of `weights`. "
        "An abstention is no vote.",
    )
    members: list[str] = leaf(
        [],
        of=("voted",),
        description="Other recipes whose predictions of the same test rows vote too, each with its own "
        "`sampling` and prompts.",
    )
    weights: Weights | None = leaf(
        None,
        of=("voted",),
        description="What a draw's vote counts, for `rule: weighted`. Voter -> weight (default 1), where "
        "voters are `own`, a name of prompt.variants, a member, or `member/variant`; `accuracy`: the voter's "
        "share of right draws of `dataset.validation`; `logprob`: e to the draw's mean token "
        "log-probability.",
    )
    ties: Literal["first", "seeded", "abstain"] = leaf(
        of=("voted",),
        description="Among equally voted answers: the one drawn first (own draws before those of variants, "
        "members last), one chosen by a hash of `seed` and the row's id, or no answer at all.",
    )
    seed: int | None = leaf(None, of=("voted",), description="Seed of `ties: seeded`.", ge=0, lt=2**63)

    @model_validator(mode="after")
    def _weights_belong_to_the_rule(self) -> Voting:
        if (self.rule == "weighted") != (self.weights is not None):
            raise ValueError("`rule: weighted` and `weights` go together: give both or neither")
        if (self.ties == "seeded") != (self.seed is not None):
            raise ValueError("`ties: seeded` and `seed` go together: give both or neither")
        if len(set(self.members)) < len(self.members):
            raise ValueError("members: one is named twice; give it a weight instead")
        return self


class Scoring(Section):
    """What is measured, and against what."""

    metrics: list[MetricName] = leaf(
        ["accuracy"],
        of=("scores",),
        description="Metrics to report; see docs/scores.md. A row's gold answers are what texts are compared "
        "with.",
        min_length=1,
    )
    stem: bool = leaf(
        True,
        of=("scores",),
        description="Whether ROUGE compares English words by their stems (Porter); false for others.",
    )
    tokenize: Literal["13a", "intl", "zh", "char"] = leaf(
        "13a",
        of=("scores",),
        description="How BLEU divides texts into words (named as in sacrebleu): 13a as WMT does, intl by "
        "Unicode, zh Chinese by character, char everything by character.",
    )
    references: Literal["best", "mean"] = leaf(
        "best",
        of=("scores",),
        description="Of several gold answers to a row: the one that is best for a text counts, or the mean "
        "over all. BLEU and chrF take `best` as all together.",
    )
    weigh: Literal["rows", "problems"] | None = leaf(
        None,
        of=("scores",),
        description="What counts once: a row, or a problem (rows of one group, averaged). By default "
        "accuracy counts rows and other metrics problems. Intervals and tests resample problems in any case.",
    )
    answer_schema: str | None = leaf(
        None,
        of=(SOURCE,),
        description="File with the JSON Schema of `schema_valid`, relative to the recipe.",
        min_length=1,
    )
    own: dict[str, str] = leaf(
        {},
        of=("scores",),
        description="Metrics of an installed package: name in the entry point group tunemake.metrics -> "
        "version of the package.",
    )
    compare: list[Literal["base"]] = leaf(
        [], of=("scores",), description="Also predict with the untuned base, and test the difference."
    )
    resamples: int = leaf(
        10000, of=("scores",), description="Bootstrap resamples of the 95 % intervals.", ge=100, le=10**6
    )
    seed: int = leaf(0, of=("scores",), description="Seed of the bootstrap.", ge=0, lt=2**32)

    @model_validator(mode="after")
    def _schema_is_of_its_metric(self) -> Scoring:
        if (self.answer_schema is None) == ("schema_valid" in self.metrics):
            raise ValueError(
                "answer_schema and the metric schema_valid belong together: give both or neither"
            )
        return self

    @model_validator(mode="after")
    def _own_names_are_new(self) -> Scoring:
        if taken := set(self.own) & set(get_args(MetricName)):
            raise ValueError(
                f"own: {min(taken)} is the name of a metric that there is; register another name"
            )
        return self
