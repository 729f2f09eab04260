"""Recipe sections that say what generates the draws, and what they are held to."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, model_validator

from workflow.patterns import compile_pattern
from workflow.recipe.leaf import SOURCE, Section, leaf

MADE = ("predictions",)
Quantization = Literal["fp8", "fp8_per_tensor", "fp8_per_channel", "fp8_per_block", "mxfp8"]
"""Names of vLLM; those that it applies to experts alone are left out: on other models they do nothing."""
Weights = Literal["merged", "adapter"]
_WEIGHTS = "What answers: `merged`, one checkpoint; `adapter`, the base with the adapter beside it."


class Vllm(Section):
    """vLLM in the job itself."""

    name: Literal["vllm"] = leaf(of=MADE, description="What generates.")
    weights: Weights = leaf("merged", of=MADE, description=_WEIGHTS)
    quantization: Quantization | None = leaf(
        None,
        of=MADE,
        description="Quantise bfloat16 or float16 weights while they are loaded, as vLLM names it. A "
        "checkpoint that is already quantised needs no word.",
    )
    batch_invariant: bool = leaf(
        False,
        of=MADE,
        description="On GPUs use kernels whose results do not depend on what else is in the batch "
        "(VLLM_BATCH_INVARIANT); slower. On a CPU they never do.",
    )


class Transformers(Section):
    """transformers' own `generate`, one draw at a time."""

    name: Literal["transformers"] = leaf(of=MADE, description="What generates.")
    weights: Weights = leaf(
        "merged", of=MADE, description=_WEIGHTS + " A trained prompt is always beside its base."
    )


class Endpoint(Section):
    """A server with OpenAI's interface, somewhere else."""

    name: Literal["endpoint"] = leaf(of=MADE, description="What generates.")
    base_url: str = leaf(
        of=MADE,
        description="Address of the interface, up to and with `/v1`; what answers there under the model's "
        "name is taken to be the same as long as both are.",
    )
    model: str = leaf(of=MADE, description="Name of the model that is asked for.", min_length=1)
    api: Literal["chat", "completions"] = leaf(
        of=MADE,
        description="`chat`: messages to /chat/completions, rendered by the server's chat template; "
        "`completions`: our own token ids to /completions, which vLLM's server takes.",
    )
    seeds: bool = leaf(
        True, of=MADE, description="Whether each draw's seed is sent; false for servers that refuse one."
    )

    @model_validator(mode="after")
    def _plain_address(self) -> Endpoint:
        try:
            url = urlsplit(self.base_url)
            whole = url.scheme in ("http", "https") and bool(url.hostname) and (url.port or 1) > 0
        except ValueError:
            whole = False
        if not whole:
            raise ValueError("base_url must be an address such as https://host:8000/v1")
        if url.username is not None or url.password is not None or url.query or url.fragment:
            raise ValueError(
                "base_url holds no key, user or password: name a variable in execution.endpoint.key_variable"
            )
        return self


def _by_name(given: Any) -> Any:
    return {"name": given} if isinstance(given, str) else given


_ENGINES = Vllm | Transformers | Endpoint
Engine = Annotated[
    _ENGINES,
    Field(discriminator="name"),
    BeforeValidator(
        _by_name,
        json_schema_input_type=Literal["vllm", "transformers"]
        | Annotated[_ENGINES, Field(discriminator="name")],
    ),
]


class Constraint(Section):
    """What an answer is held to while it is generated; one of these."""

    choice: Literal["options"] | list[Annotated[str, Field(min_length=1)]] | None = leaf(
        None,
        of=MADE,
        description="One of these texts and nothing else; `options`: the letter of one of the row's options.",
        min_length=1,
    )
    json_schema: str | None = leaf(
        None,
        of=(SOURCE,),
        description="File with the JSON Schema that an answer fits, relative to the recipe.",
        min_length=1,
    )
    regex: str | None = leaf(None, of=MADE, description="Pattern that the whole answer fits.", min_length=1)

    @model_validator(mode="after")
    def _exactly_one(self) -> Constraint:
        given = [name for name in ("choice", "json_schema", "regex") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of choice, json_schema and regex, not {len(given)}")
        if self.regex:
            compile_pattern(self.regex)
        return self
