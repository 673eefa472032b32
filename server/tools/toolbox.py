"""Tools of a request under its `tool_choice`: callable functions, the echo, and the client's names of them. Pure."""

from collections.abc import Container, Iterable, Sequence
from typing import Any, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct
from msgspec.structs import replace

from engine.chat_template import Tool
from engine.dialects import MAX_CALLS
from engine.notations import ArgumentSchema, argument_schema
from server.protocol.errors import InvalidRequest
from server.protocol.request import NULL, part
from server.protocol.tools import (
    BUILTIN_CHOICES,
    AllowedTools,
    CustomChoice,
    CustomTool,
    FunctionTool,
    McpChoice,
    NamedChoice,
    NamespaceTool,
    ToolChoice,
    ToolEcho,
)
from server.stream import ToolCallStarted
from server.tools.additional_tools import AdditionalTools
from server.tools.tool_reader import ANY_TOOL, ToolReader, ToolSpec, by_name, qualified_name

MAX_TOOLS = 512
"""Number of entries in `tools` and in items that offer tools."""


class Toolbox(Struct, frozen=True):
    echo: tuple[ToolEcho, ...] = ()
    choice: ToolChoice = "auto"
    all_tools: tuple[ToolSpec, ...] = ()
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
        return tuple(spec.tool for spec in self.specs)

    @property
    def rendered(self) -> tuple[Tool, ...]:
        """Tools that the prompt begins with: all but those that a search has found, unless there are no others."""
        return tuple(spec.tool for spec in self.specs if not spec.found) or self.tools

    @property
    def found(self) -> dict[str, str]:
        """Description of each tool that a search has found, by its name for the model."""
        found = [spec.tool for spec in self.all_tools if spec.found]
        return {tool.name: _description(tool) for tool in found} if len(found) < len(self.all_tools) else {}

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
    additional: Iterable[AdditionalTools] = (),
) -> Toolbox:
    """Return the tools of a request. Raises InvalidRequest.

    `nested`: True if each tool is inside a field named as its type (Chat Completions). `additional`: tools of items.
    """
    reader = ToolReader(nested)
    _check_count(len(raws), "tools")
    reader.read(raws)
    for item in additional:
        _check_count(len(reader.echo) + len(item.tools), item.place)
        reader.read(item.tools, item.place, replaces=True, found=item.found)
    all_tools = tuple(reader.specs.values())
    effective, specs = _read_choice(choice, all_tools, nested)
    return Toolbox(tuple(reader.echo), effective, all_tools, specs, tuple(reader.skipped), parallel)


def _description(tool: Tool) -> str:
    fields = {"name": tool.name, "description": tool.description, "parameters": Raw(tool.parameters.encode())}
    return msgspec.json.encode(fields).decode()


def _check_count(count: int, place: str) -> None:
    if count > MAX_TOOLS:
        raise InvalidRequest(f"`{place}` has {count} entries; at most {MAX_TOOLS} are allowed.", param=place)


T = TypeVar("T", bound=FunctionTool | CustomTool)


def _effective_tool(tool: ToolEcho, unenforced: Container[str]) -> ToolEcho:
    if isinstance(tool, NamespaceTool):
        return replace(tool, tools=tuple(_with_strict(inner, unenforced, tool.name) for inner in tool.tools))
    return _with_strict(tool, unenforced) if isinstance(tool, FunctionTool | CustomTool) else tool


def _with_strict(tool: T, unenforced: Container[str], namespace: str | None = None) -> T:
    enforced = qualified_name(tool.name, namespace) not in unenforced
    return replace(tool, strict=enforced) if isinstance(tool, FunctionTool) else tool


class _Choice(Struct):
    type: str | None = None
    name: str | None = None
    namespace: str | None = None
    server_label: str | None = None
    mode: str | None = None
    tools: list[Raw] = []


Allowed: TypeAlias = tuple[ToolChoice, tuple[ToolSpec, ...]]


def _read_choice(raw: Raw, specs: tuple[ToolSpec, ...], nested: bool) -> Allowed:
    """Return the choice to echo and the functions that it allows. Raises InvalidRequest."""
    if bytes(raw).startswith(b"{"):
        return _read_object_choice(raw, specs, nested)
    match part(raw, _STRING, "tool_choice"):
        case None | "auto":
            return "auto", specs
        case "none":
            return "none", ()
        case "required":
            return _require_call("required", specs)
        case word:
            raise InvalidRequest(
                f"`tool_choice` is {word!r}; it must be auto, none, required or an object.", param="tool_choice"
            )


_STRING: Any = str | None


def _read_object_choice(raw: Raw, specs: tuple[ToolSpec, ...], nested: bool) -> Allowed:
    choice = part(raw, _Choice, "tool_choice")
    match choice.type:
        case "function" | "custom":
            named = _named_tools(choice, specs, "tool_choice")
            return _require_call(_named_choice(choice), named)
        case "allowed_tools":
            return _read_allowed_tools(choice, specs, "tool_choice.allowed_tools" if nested else "tool_choice")
        case "mcp" if not nested and choice.server_label is not None:
            named = _named_tools(choice, specs, "tool_choice")
            return _require_call(McpChoice(choice.server_label, choice.name), named)
        case str(kind) if kind in BUILTIN_CHOICES and not nested:
            return _require_call(BUILTIN_CHOICES[kind], _named_tools(choice, specs, "tool_choice"))
        case None:
            raise _missing("type", "tool_choice")
        case kind:
            message = (
                f"`tool_choice.type` is {kind!r}; it must be function, custom, allowed_tools or a tool that the client "
                "executes (shell, local_shell, apply_patch, tool_search)."
            )
            raise InvalidRequest(message, param="tool_choice.type")


def _named_choice(choice: _Choice) -> NamedChoice | CustomChoice:
    kind = NamedChoice if choice.type == "function" else CustomChoice
    return kind(choice.name or "", choice.namespace or UNSET)


def _read_allowed_tools(choice: _Choice, specs: tuple[ToolSpec, ...], place: str) -> Allowed:
    """Return the effective choice for `allowed_tools`. It skips hosted tools, as the reader of `tools` does."""
    if choice.mode not in (None, "auto", "required"):
        raise InvalidRequest(f"`{place}.mode` is {choice.mode!r}; it must be auto or required.", param=f"{place}.mode")
    echo: list[Raw] = []
    named: list[ToolSpec] = []
    for index, raw in enumerate(choice.tools):
        tool_place = f"{place}.tools[{index}]"
        tool = part(raw, _Choice, tool_place)
        if tool.type is None:
            raise _missing("type", tool_place)
        if tool.type in ("function", "custom", "namespace", "mcp", *BUILTIN_CHOICES):
            named += _named_tools(tool, specs, tool_place)
            echo.append(raw)
    allowed = tuple(spec for spec in specs if spec in named)
    if choice.mode == "required":
        return _require_call(AllowedTools("required", tuple(echo)), allowed)
    return AllowedTools("auto", tuple(echo)), allowed


def _named_tools(choice: _Choice, specs: tuple[ToolSpec, ...], place: str) -> tuple[ToolSpec, ...]:
    """Return the tools that a choice names; a namespace names all its tools. Raises InvalidRequest if there is none."""
    if choice.type in BUILTIN_CHOICES:
        choice.name = choice.type
    if choice.type == "mcp":
        return _named_mcp_tools(choice, specs, place)
    if choice.name is None:
        raise _missing("name", place)
    found = tuple(spec for spec in specs if _names(choice, spec))
    if not found:
        inside = f" in the namespace {choice.namespace!r}" if choice.namespace else ""
        raise InvalidRequest(f"`{place}` names {choice.name!r}, which is not in `tools`{inside}.", param=place)
    return _of_kind(choice, found, place)


def _of_kind(choice: _Choice, found: tuple[ToolSpec, ...], place: str) -> tuple[ToolSpec, ...]:
    """Return those of the tools that are of the choice's type. Raises InvalidRequest if there is none."""
    same_kind = tuple(spec for spec in found if choice.type in ("namespace", spec.kind))
    if not same_kind:
        kind = {"function": "function", "custom": "custom tool"}.get(found[0].kind, "built-in tool")
        raise InvalidRequest(
            f"`{place}.type` is {choice.type!r}, but {choice.name!r} is a {kind}.", param=f"{place}.type"
        )
    return same_kind


def _named_mcp_tools(choice: _Choice, specs: tuple[ToolSpec, ...], place: str) -> tuple[ToolSpec, ...]:
    found = tuple(
        spec
        for spec in specs
        if spec.call.builtin in ("mcp", "mcp_approval")
        and spec.call.namespace == choice.server_label
        and (choice.name in (None, spec.call.name) or spec.call.name == ANY_TOOL)
    )
    if not found:
        message = f"`{place}` names a tool of the MCP server {choice.server_label!r}, which is not in `tools`."
        raise InvalidRequest(message, param=place)
    return found


def _names(choice: _Choice, spec: ToolSpec) -> bool:
    if choice.type == "namespace":
        return spec.call.namespace == choice.name
    return spec.call.name == choice.name and choice.namespace in (None, spec.call.namespace)


def _missing(field: str, place: str) -> InvalidRequest:
    return InvalidRequest(f"`{field}` is missing in `{place}`.", param=place)


def _require_call(choice: ToolChoice, specs: tuple[ToolSpec, ...]) -> Allowed:
    if not specs:
        message = "`tool_choice` requires a call, but the request has no tool to call: send one in `tools`."
        raise InvalidRequest(message, param="tool_choice")
    return choice, specs
