"""The recipe: one YAML file, one run."""

from __future__ import annotations

from pydantic import Field, model_validator

from workflow.recipe.answers import Sampling, Scoring, Voting
from workflow.recipe.dataset import Dataset
from workflow.recipe.gate import Gate
from workflow.recipe.leaf import Section
from workflow.recipe.model import Model, RecipeBase
from workflow.recipe.prompt import Prompt
from workflow.recipe.rules import broken
from workflow.recipe.serving import Serving
from workflow.recipe.training import DeepSpeed, Execution, Training
from workflow.recipe.tuning import Combination, Continued, Tuning


class Recipe(Section):
    """What is wanted of one fine-tuned model, from its rows to its scores."""

    dataset: Dataset = Field(description="Where training and test rows come from.")
    prompt: Prompt = Field(description="How a row becomes messages and how long it may get.")
    gate: Gate | None = Field(
        None, description="What data is refused; left out: nothing, but all is counted."
    )
    model: Model = Field(description="The model that training starts from.")
    tuning: Tuning | None = Field(None, description="The tuning method.")
    training: Training | None = Field(None, description="The optimisation.")
    deepspeed: DeepSpeed | None = Field(None, description="DeepSpeed; left out: plain training.")
    sampling: Sampling | None = Field(None, description="How the model is asked.")
    voting: Voting | None = Field(None, description="How the draws of a row become one answer.")
    scoring: Scoring | None = Field(None, description="What is measured, and against what.")
    serving: Serving | None = Field(None, description="What the served model is asked.")
    execution: Execution = Field(Execution(), description="How it runs; in no address.")

    @property
    def others(self) -> list[str]:
        """Names of the recipes that this one is built on: that of its base first, those that vote last."""
        base, tuning = self.model.base, self.tuning
        start = tuning.initialise if isinstance(tuning, Continued) else tuning
        of = list(start.of) if isinstance(start, Combination) else []
        members = self.voting.members if self.voting else []
        return [part.recipe for part in (base, start) if isinstance(part, RecipeBase)] + of + members

    @model_validator(mode="after")
    def _sections_go_together(self) -> Recipe:
        for why in broken(self):
            raise ValueError(why)
        return self

    @model_validator(mode="after")
    def _accuracy_is_of_votes(self) -> Recipe:
        if self.scoring and "accuracy" in self.scoring.metrics and not self.voting:
            raise ValueError(
                "the metric accuracy is of voted answers: add the section voting, or name other metrics"
            )
        return self
