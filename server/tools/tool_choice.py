"""`tool_choice`: the choice to echo, and the functions that it allows. Pure."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from msgspec import UNSET, Raw, Struct

from server.protocol.decoding import part
from server.protocol.errors import InvalidRequest
from server.protocol.tools import (
    BUILTIN_CHOICES,
    AllowedTools,
    CustomChoice,
    McpChoice,
    NamedChoice,
    ToolChoice,
)
from server.tools.tool_spec import ANY_TOOL, ToolSpec


class _Choice(Struct):
    type: str | None = None
    name: str | None = None
    namespace: str | None = None
    server_label: str | None = None
    mode: str | None = None
    tools: list[Raw] = []


Allowed: TypeAlias = tuple[ToolChoice, tuple[ToolSpec, ...]]

Index: TypeAlias = dict[tuple[str | None, str | None], list[ToolSpec]]
"""Tools by the client's name and namespace; None in a key stands for any. With it, a list of allowed tools takes linear
time."""


def read_choice(raw: Raw, specs: tuple[ToolSpec, ...], nested: bool) -> Allowed:
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
            named = _named_tools(choice, _index(specs), "tool_choice")
            return _require_call(_named_choice(choice), named)
        case "allowed_tools":
            return _read_allowed_tools(choice, specs, "tool_choice.allowed_tools" if nested else "tool_choice")
        case "mcp" if not nested and choice.server_label is not None:
            named = _named_tools(choice, _index(specs), "tool_choice")
            return _require_call(McpChoice(choice.server_label, choice.name), named)
        case str(kind) if kind in BUILTIN_CHOICES and not nested:
            return _require_call(BUILTIN_CHOICES[kind], _named_tools(choice, _index(specs), "tool_choice"))
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
    index = _index(specs)
    echo: list[Raw] = []
    named: dict[tuple[str | None, ...], tuple[ToolSpec, ...]] = {}
    for n, raw in enumerate(choice.tools):
        tool_place = f"{place}.tools[{n}]"
        tool = part(raw, _Choice, tool_place)
        if tool.type is None:
            raise _missing("type", tool_place)
        if tool.type in ("function", "custom", "namespace", "mcp", *BUILTIN_CHOICES):
            key = (tool.type, tool.name, tool.namespace, tool.server_label)
            if key not in named:
                named[key] = _named_tools(tool, index, tool_place)
            echo.append(raw)
    names = {spec.name for each in named.values() for spec in each}
    allowed = tuple(spec for spec in specs if spec.name in names)
    if choice.mode == "required":
        return _require_call(AllowedTools("required", tuple(echo)), allowed)
    return AllowedTools("auto", tuple(echo)), allowed


def _index(specs: Sequence[ToolSpec]) -> Index:
    index: Index = {}
    for spec in specs:
        name, namespace = spec.call.name, spec.call.namespace
        for key in {(name, namespace), (name, None), (None, namespace)}:
            index.setdefault(key, []).append(spec)
    return index


def _named_tools(choice: _Choice, index: Index, place: str) -> tuple[ToolSpec, ...]:
    """Return the tools that a choice names; a namespace names all its tools. Raises InvalidRequest if there is none."""
    if choice.type in BUILTIN_CHOICES:
        choice.name = choice.type
    if choice.type == "mcp":
        return _named_mcp_tools(choice, index, place)
    if choice.name is None:
        raise _missing("name", place)
    found = index.get((None, choice.name) if choice.type == "namespace" else (choice.name, choice.namespace))
    if not found:
        inside = f" in the namespace {choice.namespace!r}" if choice.namespace else ""
        raise InvalidRequest(f"`{place}` names {choice.name!r}, which is not in `tools`{inside}.", param=place)
    return _of_kind(choice, found, place)


def _of_kind(choice: _Choice, found: Sequence[ToolSpec], place: str) -> tuple[ToolSpec, ...]:
    """Return those of the tools that are of the choice's type. Raises InvalidRequest if there is none."""
    same_kind = tuple(spec for spec in found if choice.type in ("namespace", spec.kind))
    if not same_kind:
        kind = {"function": "function", "custom": "custom tool"}.get(found[0].kind, "built-in tool")
        raise InvalidRequest(
            f"`{place}.type` is {choice.type!r}, but {choice.name!r} is a {kind}.", param=f"{place}.type"
        )
    return same_kind


def _named_mcp_tools(choice: _Choice, index: Index, place: str) -> tuple[ToolSpec, ...]:
    if choice.server_label is None:
        raise _missing("server_label", place)
    names = {None} if choice.name is None else {choice.name, ANY_TOOL}
    named = (spec for name in names for spec in index.get((name, choice.server_label), ()))
    found = tuple(spec for spec in named if spec.call.builtin in ("mcp", "mcp_approval"))
    if not found:
        message = f"`{place}` names a tool of the MCP server {choice.server_label!r}, which is not in `tools`."
        raise InvalidRequest(message, param=place)
    return found


def _missing(field: str, place: str) -> InvalidRequest:
    return InvalidRequest(f"`{field}` is missing in `{place}`.", param=place)


def _require_call(choice: ToolChoice, specs: tuple[ToolSpec, ...]) -> Allowed:
    if not specs:
        message = "`tool_choice` requires a call, but the request has no tool to call: send one in `tools`."
        raise InvalidRequest(message, param="tool_choice")
    return choice, specs
