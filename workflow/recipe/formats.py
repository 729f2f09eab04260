"""Recipe sections of the data formats: one class each, told apart by `format`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from workflow.patterns import named_groups
from workflow.recipe.leaf import Section, leaf
from workflow.recipe.source import Column, FieldName, RecordSource, SourceFile

_FORMAT = "Row format of the file."
_VARIABLES = "Template variable -> column, for the system and user blocks."


class Round1Source(SourceFile):
    """Datawhale's logic rows: `{problem, questions: [{question, options, answer}], id}`, JSON lines."""

    format: Literal["round1"] = leaf(of=("rows",), description=_FORMAT)


class Parse(Section):
    """Take fields out of a text column with a regular expression, and prove that nothing was lost."""

    field: FieldName = leaf(of=("rows",), description="Column that holds the rendered user turn.")
    pattern: str = leaf(
        of=("rows",),
        description="RE2 pattern with named groups; each group becomes a prompt field. A group called "
        "`options` is split into its lines, whose letters (`A. `) are taken off.",
        min_length=1,
    )

    @model_validator(mode="after")
    def _pattern_has_names(self) -> Parse:
        if not named_groups(self.pattern):
            raise ValueError("the pattern needs at least one named group: (?P<question>...)")
        return self


class AlpacaSource(RecordSource):
    """`{instruction, input, output}` rows; with a history they are conversations."""

    format: Literal["alpaca"] = leaf(of=("rows",), description=_FORMAT)
    parse: Parse | None = Field(None, description="Take the prompt fields out of one column.")
    history_column: Column | None = leaf(
        None,
        of=("rows",),
        description="Column with the earlier rounds, `[[question, answer], ...]`; may be empty.",
    )

    @model_validator(mode="after")
    def _parsed_or_told(self) -> AlpacaSource:
        if self.parse and self.history_column:
            raise ValueError("give either `parse` or `history_column`: a conversation has no parsed fields")
        return self


class ColumnsSource(RecordSource):
    """Any table or list of records, whose columns are mapped by name."""

    format: Literal["columns"] = leaf(of=("rows",), description=_FORMAT)
    prompt: dict[FieldName, Column] = leaf(of=("rows",), description=_VARIABLES, min_length=1)
    target: dict[FieldName, Column] = leaf(
        {},
        of=("rows",),
        description="Template variable -> column, for the assistant block only; a prompt cannot see it.",
    )
    gold: Column | list[Column] | None = leaf(
        None,
        of=("rows",),
        description="Column with the right answer, for scoring: one value or a list of accepted ones; or "
        "several such columns.",
    )


class PromptResponseSource(RecordSource):
    """One question and its answer: `{prompt, response}`, BELLE's `{input, target}`, ..."""

    format: Literal["prompt_response"] = leaf(of=("rows",), description=_FORMAT)
    prompt_column: Column = leaf("prompt", of=("rows",), description="Column with the question.")
    response_column: Column = leaf("response", of=("rows",), description="Column with the answer.")


class ChatHistorySource(RecordSource):
    """A question, its answer and the rounds before it: `{prompt, response, history: [[q, a], ...]}`."""

    format: Literal["chat_history"] = leaf(of=("rows",), description=_FORMAT)
    prompt_column: Column = leaf("prompt", of=("rows",), description="Column with the question.")
    response_column: Column = leaf("response", of=("rows",), description="Column with the answer.")
    history_column: Column = leaf(
        "history",
        of=("rows",),
        description="Column with the earlier rounds, `[[question, answer], ...]`; may be empty.",
    )


class TextSource(RecordSource):
    """Plain text, all of whose tokens are trained (continued pre-training)."""

    format: Literal["text"] = leaf(of=("rows",), description=_FORMAT)
    text_column: Column = leaf("text", of=("rows",), description="Column with the text.")


class Gsm8kSource(RecordSource):
    """Word problems: `{question, answer}`, whose answers end in `#### number` (Cobbe et al. 2021)."""

    format: Literal["gsm8k"] = leaf(of=("rows",), description=_FORMAT)
    calculator: Literal["keep", "drop"] = leaf(
        "keep", of=("rows",), description="What happens to calculator annotations, `<<48/2=24>>`."
    )


Role = Literal["user", "assistant", "system", "tool"]


class Turns(Section):
    """Where a record holds its conversation."""

    column: Column = leaf("conversations", of=("rows",), description="Column with the list of turns.")
    role: str | None = leaf(
        "from",
        of=("rows",),
        description="Key of a turn's role; null: there is none, user and assistant take turns, user first.",
    )
    content: str = leaf("value", of=("rows",), description="Key of a turn's text.")
    roles: dict[str, Role] = leaf(
        {},
        of=("rows",),
        description="The data's own name of a role -> user, assistant, system or tool, beside the usual "
        "names: human, gpt, model, bot, function_call, observation, function_response, ...",
    )
    leading: Literal["error", "drop"] = leaf(
        "error",
        of=("rows",),
        description="What happens to turns before the first of the user's, a system turn apart.",
    )


class MessageTurns(Turns):
    """Where a record holds its messages."""

    column: Column = leaf("messages", of=("rows",), description="Column with the list of turns.")
    role: str | None = leaf(
        "role",
        of=("rows",),
        description="Key of a turn's role; null: there is none, user and assistant take turns, user first.",
    )
    content: str = leaf("content", of=("rows",), description="Key of a turn's text.")


class ShareGptSource(RecordSource):
    """Conversations: `{conversations: [{from: human | gpt, value}]}`; other keys by `turns`."""

    format: Literal["sharegpt"] = leaf(of=("rows",), description=_FORMAT)
    turns: Turns = Field(Turns(), description="Where a record holds its conversation.")
    prompt: dict[FieldName, Column] = leaf({}, of=("rows",), description=_VARIABLES)


class MessagesSource(RecordSource):
    """OpenAI's chat format: `{messages: [{role, content, weight}], tools}`."""

    format: Literal["messages"] = leaf(of=("rows",), description=_FORMAT)
    turns: MessageTurns = Field(MessageTurns(), description="Where a record holds its messages.")
    prompt: dict[FieldName, Column] = leaf({}, of=("rows",), description=_VARIABLES)


class Choice(Section):
    """Where a record holds a single-choice question."""

    question: Column = leaf("question", of=("rows",), description="Column with the question.")
    passage: Column | None = leaf(
        None,
        of=("rows",),
        description="Column with a text that the question is about; a split keeps its questions together.",
    )
    options: Column | list[Column] | None = leaf(
        None,
        of=("rows",),
        description="Column with the options, a list or one line each (default `options`); or a column for "
        "each. Letters in front (`A. `, `(A) `) are taken off.",
    )
    options_behind: str | None = leaf(
        None,
        of=("rows",),
        description="Line in the question's text behind which the options stand, one a line, such as "
        "`Options:`; instead of `options`.",
        min_length=1,
    )
    label: Column = leaf("label", of=("rows",), description="Column with the right option; may be absent.")
    label_is: Literal["letter", "index", "number", "text"] = leaf(
        "letter",
        of=("rows",),
        description="What the label is: a letter (`A`, `(A)`), an index from 0, a number from 1, or the "
        "option's text.",
    )
    several: Literal["error", "drop"] = leaf(
        "error",
        of=("rows",),
        description="What happens to questions with several right options: bad rows, or left out.",
    )

    @model_validator(mode="after")
    def _one_place(self) -> Choice:
        if self.options is not None and self.options_behind is not None:
            raise ValueError("give either `options` or `options_behind`")
        if isinstance(self.options, list) and len(self.options) < 2:
            raise ValueError("`options` as columns needs at least two of them")
        return self


class MultipleChoiceSource(RecordSource):
    """Single-choice questions, with a passage or without."""

    format: Literal["multiple_choice"] = leaf(of=("rows",), description=_FORMAT)
    choice: Choice = Field(Choice(), description="Where a record holds question, options and label.")
