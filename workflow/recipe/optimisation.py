"""Parts of `training`: the learning rate's shape, the optimizer, packing, and the loss on held-out rows.

Each choice carries its own parameters and no others, so that one that means nothing cannot be written.
A schedule or an optimizer without parameters may be given by its name alone.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from workflow.recipe.leaf import Section, leaf


class Shape(Section):
    """A learning rate that rises linearly over the warm-up and then has a shape."""

    warmup_ratio: float = leaf(
        0.0, of=("adapter",), description="Share of all optimizer steps spent warming up.", ge=0, lt=1
    )
    warmup_steps: int = leaf(0, of=("adapter",), description="Optimizer steps spent warming up.", ge=0)

    @model_validator(mode="after")
    def _one_warm_up(self) -> Shape:
        if self.warmup_ratio and self.warmup_steps:
            raise ValueError("warmup_ratio and warmup_steps both say how long the warm-up is; give one")
        return self


class Plain(Shape):
    """A shape without parameters."""

    name: Literal["linear", "cosine", "constant"] = leaf(
        of=("adapter",), description="Shape after warm-up; both `linear` and `cosine` end at 0."
    )


class Restarts(Shape):
    """Cosine to 0, several times over."""

    name: Literal["cosine_with_restarts"] = leaf(of=("adapter",), description="Shape after warm-up.")
    num_cycles: int = leaf(of=("adapter",), description="How often it falls from the peak to 0.", gt=0)


class Floor(Shape):
    """Cosine to a share of the peak."""

    name: Literal["cosine_with_min_lr"] = leaf(of=("adapter",), description="Shape after warm-up.")
    min_lr_rate: float = leaf(
        of=("adapter",), description="Last learning rate as a share of the peak.", ge=0, lt=1
    )


class Polynomial(Shape):
    """(remaining share of the steps) ** power, down to `lr_end`."""

    name: Literal["polynomial"] = leaf(of=("adapter",), description="Shape after warm-up.")
    power: float = leaf(of=("adapter",), description="Exponent; 1 is linear.", gt=0)
    lr_end: float = leaf(0.0, of=("adapter",), description="Last learning rate.", ge=0)


class InverseRoot(Shape):
    """1 / sqrt of the step, counted from a time scale on."""

    name: Literal["inverse_sqrt"] = leaf(of=("adapter",), description="Shape after warm-up.")
    timescale: int = leaf(
        of=("adapter",), description="Steps after which the rate is 1 / sqrt(2) of the peak.", gt=0
    )


class Stable(Shape):
    """Constant, then a cosine down (Hu et al. 2024, arXiv:2404.06395)."""

    name: Literal["warmup_stable_decay"] = leaf(of=("adapter",), description="Shape after warm-up.")
    decay_ratio: float = leaf(
        of=("adapter",), description="Share of all optimizer steps in which it falls, at the end.", gt=0, le=1
    )
    min_lr_ratio: float = leaf(
        0.0, of=("adapter",), description="Last learning rate as a share of the peak.", ge=0, lt=1
    )


class AdamW(Section):
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101)."""

    name: Literal["adamw", "adamw_fused", "paged_adamw_8bit"] = leaf(
        of=("adapter",),
        description="`adamw` and `adamw_fused` are torch's; `paged_adamw_8bit` (bitsandbytes) keeps its "
        "state in 8 bits, a quarter of the memory, and moves it to main memory when the GPU's is full.",
    )
    weight_decay: float = leaf(
        0.0, of=("adapter",), description="Weight decay; biases and norms have none.", ge=0
    )
    beta1: float = leaf(0.9, of=("adapter",), description="Decay of the mean gradient.", ge=0, lt=1)
    beta2: float = leaf(0.999, of=("adapter",), description="Decay of the mean squared gradient.", ge=0, lt=1)
    epsilon: float = leaf(1e-8, of=("adapter",), description="Added to the denominator.", gt=0)


class Adafactor(Section):
    """Adafactor (Shazeer and Stern 2018, arXiv:1804.04235), with the learning rate of the recipe."""

    name: Literal["adafactor"] = leaf(
        of=("adapter",), description="Keeps rows and columns of the squared gradients: almost no memory."
    )
    weight_decay: float = leaf(
        0.0, of=("adapter",), description="Weight decay; biases and norms have none.", ge=0
    )


def _by_name(given: Any) -> Any:
    return {"name": given} if isinstance(given, str) else given


_SHAPES = Plain | Restarts | Floor | Polynomial | InverseRoot | Stable
_OPTIMIZERS = AdamW | Adafactor
Schedule = Annotated[
    _SHAPES,
    Field(discriminator="name"),
    BeforeValidator(
        _by_name,
        json_schema_input_type=Literal["linear", "cosine", "constant"]
        | Annotated[_SHAPES, Field(discriminator="name")],
    ),
]
Optimizer = Annotated[
    _OPTIMIZERS,
    Field(discriminator="name"),
    BeforeValidator(
        _by_name,
        json_schema_input_type=Literal["adamw", "adamw_fused", "paged_adamw_8bit", "adafactor"]
        | Annotated[_OPTIMIZERS, Field(discriminator="name")],
    ),
]


class Packing(Section):
    """Several rows in one sequence, each as if it were alone: no attention between them."""

    length: int = leaf(
        of=("adapter",), description="Tokens of a packed sequence; the longest row must fit.", gt=1
    )


class EarlyStopping(Section):
    """Stop when the loss on held-out rows no longer falls."""

    patience: int = leaf(
        of=("adapter",), description="Evaluations in a row without improvement that end the training.", gt=0
    )
    min_delta: float = leaf(
        0.0, of=("adapter",), description="How much lower a loss must be to be an improvement.", ge=0
    )


class Validation(Section):
    """Rows taken out of training, chosen by a hash of their ids, on which the loss is measured."""

    share: float | None = leaf(
        None, of=("adapter",), description="Share of the training rows held out.", gt=0, lt=1
    )
    rows: int | None = leaf(None, of=("adapter",), description="Number of training rows held out.", gt=0)
    seed: int = leaf(0, of=("adapter",), description="Seed of the hash that chooses them.", ge=0)
    every_steps: int | None = leaf(
        None, of=("adapter",), description="Optimizer steps between two evaluations.", gt=0
    )
    every_epochs: int | None = leaf(
        None, of=("adapter",), description="Epochs between two evaluations.", gt=0
    )
    keep: Literal["last", "best"] = leaf(
        of=("adapter",),
        description="Which weights are the product: those after the last step, or those with the lowest "
        "validation loss (the earliest of equal ones).",
    )
    early_stopping: EarlyStopping | None = Field(
        None, description="Stop when the loss on held-out rows no longer falls."
    )

    @model_validator(mode="after")
    def _one_of_each(self) -> Validation:
        if (self.share is None) == (self.rows is None):
            raise ValueError("give either `share` or `rows`: how many training rows are held out")
        if (self.every_steps is None) == (self.every_epochs is None):
            raise ValueError("give either `every_steps` or `every_epochs`: how often the loss is measured")
        return self
