"""The recipe: one YAML file, one run."""

from __future__ import annotations

from pydantic import Field, model_validator

from workflow.recipe.answers import Sampling, Scoring, Voting
from workflow.recipe.dataset import Dataset, Prompt
from workflow.recipe.leaf import Section
from workflow.recipe.model import Model
from workflow.recipe.rules import broken
from workflow.recipe.training import DeepSpeed, Execution, Training
from workflow.recipe.tuning import Tuning


class Recipe(Section):
    """What is wanted of one fine-tuned model, from its rows to its scores."""

    dataset: Dataset = Field(description="Where training and test rows come from.")
    prompt: Prompt = Field(description="How a row becomes messages and how long it may get.")
    model: Model = Field(description="The model that training starts from.")
    tuning: Tuning | None = Field(None, description="The tuning method.")
    training: Training | None = Field(None, description="The optimisation.")
    deepspeed: DeepSpeed | None = Field(None, description="DeepSpeed; left out: plain training.")
    sampling: Sampling | None = Field(None, description="How the model is asked.")
    voting: Voting | None = Field(None, description="How the draws of a row become one answer.")
    scoring: Scoring | None = Field(None, description="What is measured, and against what.")
    execution: Execution = Field(Execution(), description="How it runs; in no address.")

    @model_validator(mode="after")
    def _sections_go_together(self) -> Recipe:
        for why in broken(self):
            raise ValueError(why)
        return self
