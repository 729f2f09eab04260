"""The recipe section that says by which method the model is tuned."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from workflow.recipe.leaf import Section, leaf


class Lora(Section):
    """Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685), by PEFT."""

    method: Literal["lora"] = leaf(of=("adapter",), description="Tuning method.")
    r: int = leaf(of=("adapter",), description="Rank of the update matrices.", gt=0)
    lora_alpha: int = leaf(
        of=("adapter",), description="Scaling numerator: updates are scaled by lora_alpha / r.", gt=0
    )
    lora_dropout: float = leaf(
        0.0, of=("adapter",), description="Dropout probability on the adapter's input.", ge=0, lt=1
    )
    target_modules: Literal["all-linear"] | list[str] = leaf(
        "all-linear",
        of=("adapter",),
        description="Names of the linear modules to adapt (last part of the name), or `all-linear`.",
    )


class Full(Section):
    """Full fine-tuning: every weight is trained and the product is a whole model."""

    method: Literal["full"] = leaf(of=("adapter",), description="Tuning method.")


Tuning = Annotated[Lora | Full, Field(discriminator="method")]
