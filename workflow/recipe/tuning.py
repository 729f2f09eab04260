"""The recipe section that says by which method the model is tuned; what each is: docs/methods.md."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from workflow.recipe.leaf import Section, leaf
from workflow.recipe.model import RecipeBase

TRAINED = ("adapter",)
ROLE = "adapter of "
"""Role of an adapter that is combined with others, before the name of its recipe."""
Name = Annotated[str, Field(min_length=1)]


class Combination(Section):
    """One adapter made of several, by PEFT's `add_weighted_adapter`."""

    of: dict[Name, float] = leaf(
        of=TRAINED, description="Recipe -> weight of its adapter; all tune the same model.", min_length=2
    )
    combination: Literal["linear", "cat", "ties", "dare_linear", "dare_ties"] = leaf(
        of=TRAINED,
        description="linear: weighted factors, an approximation; cat: the weighted sum itself, of rank the "
        "sum of ranks; ties: TIES (arXiv:2306.01708); dare_*: DARE (arXiv:2311.03099).",
    )
    density: float | None = leaf(
        None, of=TRAINED, description="Share of values that ties and dare keep.", gt=0, le=1
    )
    seed: int = leaf(0, of=TRAINED, description="Seed of the values that dare drops.", ge=0, lt=2**32)

    @model_validator(mode="after")
    def _density_fits(self) -> Combination:
        if self.combination in ("linear", "cat") and self.density is not None:
            raise ValueError(f"{self.combination} keeps every value: drop density")
        if self.combination not in ("linear", "cat") and self.density is None:
            raise ValueError(f"{self.combination} needs density, the share of values that are kept")
        return self


class Combined(Combination):
    """The adapters of other recipes as one; nothing is trained."""

    method: Literal["combined"] = leaf(of=TRAINED, description="Tuning method.")


class Factors(Section):
    """What all methods with low-rank factors have in common."""

    r: int = leaf(of=TRAINED, description="Rank of the update matrices.", gt=0)
    lora_alpha: int = leaf(
        of=TRAINED,
        description="Scaling numerator: updates are scaled by lora_alpha / r (rslora: by lora_alpha / √r).",
        gt=0,
    )
    lora_dropout: float = leaf(
        0.0, of=TRAINED, description="Dropout probability on the adapter's input.", ge=0, lt=1
    )
    target_modules: Literal["all-linear"] | list[Name] = leaf(
        "all-linear",
        of=TRAINED,
        description="Names of the linear modules to adapt (last part of the name), or `all-linear`.",
    )
    modules_to_save: list[Name] = leaf(
        [],
        of=TRAINED,
        description="Modules trained whole beside the factors (end of the name), e.g. `lm_head`.",
    )
    rank_pattern: dict[Name, PositiveInt] = leaf(
        {}, of=TRAINED, description="End of a module's name (regular expression) -> its own r."
    )
    alpha_pattern: dict[Name, PositiveFloat] = leaf(
        {}, of=TRAINED, description="End of a module's name (regular expression) -> its own lora_alpha."
    )
    layers_to_transform: list[int] | None = leaf(
        None,
        of=TRAINED,
        description="Numbers of the layers to adapt, from 0; default: all. Needs target_modules as a list.",
        min_length=1,
    )
    bias: Literal["none", "all", "lora_only"] = leaf(
        "none", of=TRAINED, description="Biases trained besides: none, all, or those of adapted modules."
    )

    @model_validator(mode="after")
    def _layers_need_names(self) -> Factors:
        if self.layers_to_transform is not None and isinstance(self.target_modules, str):
            raise ValueError("layers_to_transform needs target_modules as a list of names, not all-linear")
        return self


class Continued(Factors):
    """Factors that may start from those of other recipes."""

    initialise: RecipeBase | Combination | None = Field(
        None,
        description="Start from a trained adapter: `{recipe: name}`, or several as in `method: combined`. To "
        "train on top of a merged model, name the recipe in model.base.",
    )


class Lora(Continued):
    """Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685), by PEFT."""

    method: Literal["lora"] = leaf(of=TRAINED, description="Tuning method.")


class RsLora(Continued):
    """Rank-stabilised LoRA (Kalajdzievski 2023, arXiv:2312.03732): updates are scaled by lora_alpha / √r."""

    method: Literal["rslora"] = leaf(of=TRAINED, description="Tuning method.")


class Dora(Continued):
    """Weight-decomposed LoRA (Liu et al. 2024, arXiv:2402.09353): direction by LoRA, length by itself."""

    method: Literal["dora"] = leaf(of=TRAINED, description="Tuning method.")


class LoraPlus(Continued):
    """LoRA+ (Hayou et al. 2024, arXiv:2402.12354): the factor B has a higher learning rate than A."""

    method: Literal["lora_plus"] = leaf(of=TRAINED, description="Tuning method.")
    learning_rate_ratio: float = leaf(
        16.0, of=TRAINED, description="Learning rate of B over that of A (training.learning_rate).", ge=1
    )


class Pissa(Factors):
    """PiSSA (Meng et al. 2024, arXiv:2404.02948): factors start as the principal singular vectors.

    It is saved as plain LoRA of twice the rank on the untouched base, by PEFT's conversion.
    """

    method: Literal["pissa"] = leaf(of=TRAINED, description="Tuning method.")
    iterations: int | None = leaf(
        None, of=TRAINED, description="Iterations of a fast approximate SVD; default: the exact one.", gt=0
    )


class Quantization(Section):
    """How the frozen base is held while a QLoRA is trained, by bitsandbytes."""

    type: Literal["nf4", "fp4", "int8"] = leaf(
        of=("adapter", "merged"), description="4-bit NormalFloat, 4-bit float, or LLM.int8."
    )
    double: bool = leaf(
        False, of=("adapter", "merged"), description="Quantise the 4-bit block scales once more."
    )

    @model_validator(mode="after")
    def _double_is_for_four_bits(self) -> Quantization:
        if self.double and self.type == "int8":
            raise ValueError("int8 has no block scales to quantise: drop double")
        return self


class Qlora(Continued):
    """LoRA on a quantised base (Dettmers et al. 2023, arXiv:2305.14314); it computes in model.dtype."""

    method: Literal["qlora"] = leaf(of=TRAINED, description="Tuning method.")
    quantization: Quantization = Field(description="How the frozen base is held.")
    merge_into: Literal["dequantized", "original"] = leaf(
        "dequantized",
        of=("merged",),
        description="Base that is merged into: the quantised weights that the adapter was trained on, "
        "written in the base's own type, or the original ones.",
    )


class Ia3(Section):
    """(IA)³ (Liu et al. 2022, arXiv:2205.05638): one trained factor per activation."""

    method: Literal["ia3"] = leaf(of=TRAINED, description="Tuning method.")
    target_modules: list[Name] = leaf(
        of=TRAINED, description="Linear modules to scale (last part of the name).", min_length=1
    )
    feedforward_modules: list[Name] = leaf(
        of=TRAINED, description="Those of target_modules whose input is scaled and not their output."
    )

    @model_validator(mode="after")
    def _feedforward_is_targeted(self) -> Ia3:
        if missing := sorted(set(self.feedforward_modules) - set(self.target_modules)):
            raise ValueError(f"feedforward_modules: {missing[0]} is not in target_modules")
        return self


class Prompt(Section):
    """What the methods with trained virtual tokens before each row have in common."""

    virtual_tokens: int = leaf(of=TRAINED, description="Trained virtual tokens before each row.", gt=0)


class PromptTuning(Prompt):
    """Prompt tuning (Lester et al. 2021, arXiv:2104.08691): trained input embeddings."""

    method: Literal["prompt_tuning"] = leaf(of=TRAINED, description="Tuning method.")


class PTuning(Prompt):
    """P-tuning (Liu et al. 2021, arXiv:2103.10385): input embeddings from a small trained encoder."""

    method: Literal["p_tuning"] = leaf(of=TRAINED, description="Tuning method.")
    encoder: Literal["mlp", "lstm"] = leaf("mlp", of=TRAINED, description="Kind of the prompt encoder.")
    encoder_hidden_size: int = leaf(of=TRAINED, description="Width of the prompt encoder.", gt=0)


class PrefixTuning(Prompt):
    """Prefix tuning, P-tuning v2 (arXiv:2101.00190, 2110.07602): trained keys and values in each layer."""

    method: Literal["prefix_tuning"] = leaf(of=TRAINED, description="Tuning method.")
    projection_hidden_size: int | None = leaf(
        None,
        of=TRAINED,
        description="Width of a projection that makes keys and values; default: they are trained themselves.",
        gt=0,
    )


class Full(Section):
    """Full fine-tuning: every weight is trained and the product is a whole model."""

    method: Literal["full"] = leaf(of=TRAINED, description="Tuning method.")


Tuning = Annotated[
    Lora
    | Dora
    | RsLora
    | LoraPlus
    | Pissa
    | Qlora
    | Ia3
    | PromptTuning
    | PTuning
    | PrefixTuning
    | Full
    | Combined,
    Field(discriminator="method"),
]
