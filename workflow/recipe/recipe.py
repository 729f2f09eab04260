"""The recipe: one YAML file, one run."""

from __future__ import annotations

from pydantic import Field, model_validator

from workflow.recipe.answers import Sampling, Scoring, Voting
from workflow.recipe.dataset import Dataset
from workflow.recipe.gate import Gate
from workflow.recipe.leaf import Section
from workflow.recipe.prompt import Prompt
from workflow.recipe.training import DeepSpeed, Execution, Lora, Model, ScratchBase, Training, Tuning


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
    execution: Execution = Field(Execution(), description="How it runs; in no address.")

    @model_validator(mode="after")
    def _tuning_is_whole(self) -> Recipe:
        parts = {"tuning": self.tuning, "training": self.training, "dataset.train": self.dataset.train}
        missing = [name for name, part in parts.items() if part is None]
        if missing and len(missing) < len(parts):
            raise ValueError(f"training needs {', '.join(parts)}; missing: {', '.join(missing)}")
        return self

    @model_validator(mode="after")
    def _scratch_is_trained_in_full(self) -> Recipe:
        if isinstance(self.model.base, ScratchBase):
            if isinstance(self.tuning, Lora) or self.tuning is None:
                raise ValueError("a model from scratch has nothing to adapt: use `tuning.method: full`")
            if self.scoring and "base" in self.scoring.compare:
                raise ValueError("a model from scratch has no base to compare with: drop scoring.compare")
        return self

    @model_validator(mode="after")
    def _accuracy_is_of_votes(self) -> Recipe:
        if self.scoring and "accuracy" in self.scoring.metrics and not self.voting:
            raise ValueError(
                "the metric accuracy is of voted answers: add the section voting, or name other metrics"
            )
        return self
