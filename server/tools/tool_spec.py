"""Tools as the model and the client name them. Pure."""

from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

from msgspec import Struct

from engine.chat_template import Tool
from server.stream import ToolCallStarted

ANY_TOOL = "*"
"""Name of the function that stands for all tools of an MCP server until they are known, so that `tool_choice` can be
read. No tool has this name."""


class PlainInput(Struct, frozen=True, tag="text"):
    """Input format of a custom tool that accepts any text."""


class GrammarInput(Struct, frozen=True, tag="grammar"):
    """Input format of a custom tool whose text must match a grammar."""

    syntax: str
    """`lark` or `regex`."""
    definition: str


Input: TypeAlias = PlainInput | GrammarInput


class ToolSpec(Struct, frozen=True):
    """Function that the model may call."""

    tool: Tool
    call: ToolCallStarted
    """Start of a call under the names that the client uses."""
    place: str
    """Path in the request of the schema or format that calls must match, for errors."""
    strict: bool = False
    """True if the request requires that the server enforces the schema."""
    input: Input | None = None
    """Input format of a custom tool; None for a function."""
    found: bool = False
    """True if the prompt has it in the output of the search that has found it."""

    @property
    def name(self) -> str:
        """Name by which the model calls the function."""
        return self.tool.name

    @property
    def kind(self) -> str:
        """Type by which the client names the tool."""
        return self.call.builtin or ("custom" if self.call.custom else "function")


def by_name(specs: Sequence[ToolSpec]) -> dict[str, ToolSpec]:
    """Return the functions by every name that the model may use.

    A name without its namespace is accepted if only one function has it.
    """
    uses = Counter(spec.call.name for spec in specs)
    short = {spec.call.name: spec for spec in specs if uses[spec.call.name] == 1}
    return short | {spec.name: spec for spec in specs}


def qualified_name(name: str, namespace: str | None) -> str:
    """Return the name by which the model calls the function."""
    return f"{namespace}__{name}" if namespace else name
