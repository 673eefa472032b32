"""How families write calls, as grammars: what a function's arguments may be, in the words of each. Pure.

The other direction of `objects` and `parameters`.
"""

import json
import re
from collections.abc import Callable
from typing import TypeAlias

from msgspec import Struct

from engine.grammar import Rules, inside_json_string
from engine.json_schema import JSON


class Function(Struct, frozen=True):
    """One that may be called."""

    name: str
    """As the model knows it."""
    parameters: JSON
    """The JSON schema to which the arguments are held; `{"type": "object"}` is any object."""
    lark: str = ""
    """Of one whose only parameter is a text: the grammar for that text, if there is one."""

    @property
    def plain(self) -> bool:
        """Whether the name is the same wherever it stands."""
        return is_plain(self.name) and not self.name.startswith("functions.")

    @property
    def schema(self) -> dict[str, JSON]:
        """What arguments always are: an object."""
        return {**(self.parameters if isinstance(self.parameters, dict) else {}), "type": "object"}


def is_plain(name: str) -> bool:
    """Whether it means nothing but itself in any form."""
    return re.fullmatch(r"[\w.-]+", name) is not None


Write: TypeAlias = Callable[[Function, Rules], str]
"""The arguments in Lark. Raises GrammarError."""


def json_arguments(function: Function, rules: Rules) -> str:
    properties = function.schema.get("properties")
    if function.lark and isinstance(properties, dict):
        return rules.phrase(f"{{~{json.dumps(*properties)}:~$text~}}", {"text": json_text(function, rules)})
    return rules.json(function.schema)


def json_text(function: Function, rules: Rules) -> str:
    """Of a function with a grammar, the text."""
    return f'"\\"" {rules.lark(inside_json_string(function.lark))} "\\""'


class CallFormat(Struct, frozen=True):
    """How a family writes calls, in phrases (`lark`)."""

    call: str
    """With `$name`, once or more, and `$arguments`; `$id`, `$number` and `$place` are made up by the model."""
    markers: tuple[str, ...]
    """Those by which one sees that calls have begun; with `$name`, one for each function. A form without any is used
    where nothing but calls may come."""
    begin: str = ""
    """Before the first of several calls."""
    between: str | None = "~"
    """None: one call ends the answer."""
    end: str = ""
    any_name: bool = False
    """Whether names are JSON, and may have any characters."""
    marker_optional: bool = False
    """Whether `begin` may be left out where nothing but calls may come."""
    alternative_openings: tuple[str, ...] = ()
    """Phrases up to the name with which a call is begun too: each with a marker, up to its first part. Where a call is
    demanded, only those that continue the prompt."""
    none: str = ""
    """What may follow a marker in place of calls, where a family has words for no call."""
    answer: str = "$answer"
    """How an answer is written that is no call."""
    write: Write = json_arguments


OBJECT = '{~"name":~"$name",~"arguments":~$arguments~}'
GENERIC_FORMAT = CallFormat(f"<tool_call>~{OBJECT}~</tool_call>", ("<tool_call>",), any_name=True)
"""As `manners.TOOLS_TOLD` has it."""
