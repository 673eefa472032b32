"""Tools of a request under its `tool_choice`: callable functions, the echo, and the client's names of them. Pure."""

from collections.abc import Container, Sequence
from typing import TypeVar

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from engine.chat_template import Tool
from engine.dialects import MAX_CALLS
from engine.notations import ArgumentSchema, argument_schema
from server.protocol.request import NULL
from server.protocol.tools import (
    AllowedTools,
    CustomTool,
    FunctionTool,
    NamespaceTool,
    ToolChoice,
    ToolEcho,
)
from server.stream import ToolCallStarted
from server.tools.additional_tools import AdditionalTools
from server.tools.tool_choice import read_choice
from server.tools.tool_reader import ToolReader
from server.tools.tool_spec import ToolSpec, by_name, qualified_name


class Toolbox(Struct, frozen=True):
    echo: tuple[ToolEcho, ...] = ()
    choice: ToolChoice = "auto"
    all_specs: tuple[ToolSpec, ...] = ()
    """All functions of the request."""
    specs: tuple[ToolSpec, ...] = ()
    """Functions that `choice` allows."""
    skipped: tuple[str, ...] = ()
    """Tools of unknown types, for the log."""
    parallel: bool = True

    @property
    def max_calls(self) -> int:
        """Maximum number of calls in an answer that must consist of calls."""
        named = not isinstance(self.choice, str | AllowedTools)
        return MAX_CALLS if self.parallel and not named else 1

    @property
    def must_call(self) -> bool:
        """True if the answer must consist of calls."""
        match self.choice:
            case "auto" | "none" | AllowedTools("auto"):
                return False
            case _:
                return True

    def in_effect(self, unenforced: Container[str]) -> "Toolbox":
        """Return the toolbox with `strict` in its echo as enforced.

        `unenforced`: functions whose schemas are not enforced, by the model's names.
        """
        return replace(self, echo=tuple(_effective_tool(tool, unenforced) for tool in self.echo))

    @property
    def tools(self) -> tuple[Tool, ...]:
        """Functions that `choice` allows, as the prompt has them."""
        return tuple(spec.tool for spec in self.specs)

    @property
    def rendered(self) -> tuple[Tool, ...]:
        """Tools that the prompt begins with: all but those that a search has found, unless there are no others."""
        return tuple(spec.tool for spec in self.specs if not spec.found) or self.tools

    @property
    def found(self) -> dict[str, str]:
        """Description of each tool that a search has found, by its name for the model."""
        found = [spec.tool for spec in self.all_specs if spec.found]
        return {tool.name: _description(tool) for tool in found} if len(found) < len(self.all_specs) else {}

    @property
    def calls(self) -> dict[str, ToolCallStarted]:
        """Start of a call in the client's words, by the model's name of the function."""
        return {name: spec.call for name, spec in by_name(self.specs).items()}

    @property
    def argument_schemas(self) -> dict[str, ArgumentSchema]:
        """Schema of each function's arguments, by every name that the model may use."""
        specs = by_name(self.specs).items()
        return {name: argument_schema(msgspec.json.decode(spec.tool.parameters)) for name, spec in specs}


NO_TOOLS = Toolbox()


def toolbox(
    raws: Sequence[Raw],
    choice: Raw = NULL,
    parallel: bool = True,
    nested: bool = False,
    additional: Sequence[AdditionalTools] = (),
) -> Toolbox:
    """Return the tools of a request. Raises InvalidRequest.

    `nested`: True if each tool is inside a field named as its type (Chat Completions). `additional`: tools of items.
    """
    if not (raws or additional) and choice == NULL and parallel:
        return NO_TOOLS
    reader = ToolReader(nested)
    reader.read(raws)
    for item in additional:
        reader.read(item.tools, item.place, replaces=True, found=item.found)
    all_specs = tuple(reader.specs.values())
    effective, specs = read_choice(choice, all_specs, nested)
    return Toolbox(reader.echo, effective, all_specs, specs, tuple(reader.skipped), parallel)


def _description(tool: Tool) -> str:
    fields = {"name": tool.name, "description": tool.description, "parameters": Raw(tool.parameters.encode())}
    return msgspec.json.encode(fields).decode()


T = TypeVar("T", bound=FunctionTool | CustomTool)


def _effective_tool(tool: ToolEcho, unenforced: Container[str]) -> ToolEcho:
    if isinstance(tool, NamespaceTool):
        return replace(tool, tools=tuple(_with_strict(inner, unenforced, tool.name) for inner in tool.tools))
    return _with_strict(tool, unenforced) if isinstance(tool, FunctionTool | CustomTool) else tool


def _with_strict(tool: T, unenforced: Container[str], namespace: str | None = None) -> T:
    enforced = qualified_name(tool.name, namespace) not in unenforced
    return replace(tool, strict=enforced) if isinstance(tool, FunctionTool) else tool
