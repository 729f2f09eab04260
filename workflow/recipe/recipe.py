"""The recipe: one YAML file, one run."""

from __future__ import annotations

from pydantic import Field, model_validator

from workflow.recipe.answers import Sampling, Scoring, Voting
from workflow.recipe.dataset import Dataset
from workflow.recipe.leaf import Section
from workflow.recipe.prompt import Prompt
from workflow.recipe.training import DeepSpeed, Execution, Lora, Model, ScratchBase, Training, Tuning


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
    def _engine_fits(self) -> Recipe:
        if not self.deepspeed:
            return self
        if not self.training:
            raise ValueError("deepspeed is for training: add `training` or drop it")
        optimizer, stage = self.training.optimizer.name, self.deepspeed.zero_stage
        if optimizer == "adafactor" and stage:
            raise ValueError("adafactor needs whole matrices, ZeRO cuts them up: use zero_stage 0 or adamw")
        if optimizer == "paged_adamw_8bit" and self.deepspeed.offload_optimizer:
            raise ValueError("paged_adamw_8bit moves its state itself: drop offload_optimizer or use adamw")
        if self.deepspeed.uses_disk and not self.execution.nvme_path:
            raise ValueError("offloading to nvme needs `execution.nvme_path`, a folder on that disk")
        return self

    @model_validator(mode="after")
    def _rows_fit_a_pack(self) -> Recipe:
        packing = self.training.packing if self.training else None
        both = (self.prompt.max_source_length or 0) + (self.prompt.max_target_length or 0)
        longest = self.prompt.max_length or both
        if packing and longest == "model":
            raise ValueError(
                "training.packing needs prompt.max_length as a number, to compare with its length"
            )
        if packing and isinstance(longest, int) and packing.length < longest:
            raise ValueError(
                f"training.packing.length {packing.length} is less than the {longest} tokens that section "
                f"prompt allows a row: use {longest} or more"
            )
        return self
