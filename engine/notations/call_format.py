"""Describe the formats in which families write calls, as templates for grammars. Pure.

`json_objects` and `tagged_calls` read the same formats.
"""

import json
from collections.abc import Callable
from typing import TypeAlias

from msgspec import Struct

from engine.grammar import Rules, inside_json_string
from engine.json_schema import JSON
from engine.notations.argument_schema import is_plain
from engine.notations.spelling import Spell, json_spelling


class Function(Struct, frozen=True):
    """A function that the model may call."""

    name: str
    """Name that the model knows."""
    parameters: JSON
    """JSON schema that constrains the arguments; `{"type": "object"}` permits any object."""
    lark: str = ""
    """Lark grammar for the text of a function whose only parameter is a text; empty if there is none."""

    @property
    def plain(self) -> bool:
        """True if every notation reads the name unchanged."""
        return is_plain(self.name) and not self.name.startswith("functions.")

    @property
    def schema(self) -> dict[str, JSON]:
        """Return the schema of the arguments, which are always an object."""
        return {**(self.parameters if isinstance(self.parameters, dict) else {}), "type": "object"}


Write: TypeAlias = Callable[[Function, Rules], str]
"""Writes the arguments in Lark. Raises GrammarError."""


def json_arguments(function: Function, rules: Rules) -> str:
    """Write the arguments as a JSON object; see `Write`."""
    properties = function.schema.get("properties")
    if function.lark and isinstance(properties, dict):
        return rules.expand(f"{{{json.dumps(*properties)}: $text}}", {"text": json_text(function, rules)})
    return rules.json(function.schema)


def json_text(function: Function, rules: Rules) -> str:
    """Return the JSON string of a function that has a grammar for its text."""
    return f'"\\"" {rules.lark(inside_json_string(function.lark))} "\\""'


class CallFormat(Struct, frozen=True):
    """A family's format of calls, in the templates of `grammar.lark`."""

    call: str
    """Template of one call, with `$name` at least once and `$arguments`. The model chooses `$id`, `$number` and
    `$place`."""
    markers: tuple[str, ...]
    """Markers that begin calls; `$name` stands for each function's name. A format without markers is used only where
    the answer must be a call."""
    begin: str = ""
    """Template before the first call."""
    between: str | None = "~"
    """Template between calls; None if one call ends the answer."""
    end: str = ""
    """Template after the last call."""
    any_name: bool = False
    """True if names are JSON strings, which permit all characters."""
    marker_optional: bool = False
    """True if `begin` is optional where the answer must be a call."""
    alternative_openings: tuple[str, ...] = ()
    """Further templates up to the name, each with a marker before its first part. If the answer must be a call, only
    the openings that continue the prompt are used."""
    no_call: str = ""
    """Name without arguments that may follow a marker, in families that write explicitly that they call nothing."""
    answer: str = "$answer"
    """Template of an answer that is not a call."""
    write: Write = json_arguments
    """Writes the grammar of `$arguments`."""
    spell: Spell = json_spelling
    """Writes the `$arguments` of a past call."""


OBJECT = '{"name": "$name", "arguments": $arguments}'
"""Template of a call as one JSON object."""
GENERIC_FORMAT = CallFormat(f"<tool_call>~{OBJECT}~</tool_call>", ("<tool_call>",), any_name=True)
"""Format that `chat_template.values.TOOLS_PROMPT` asks the model to use."""
