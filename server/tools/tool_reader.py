"""Read `tools` of a request: the functions for the model, and the echo for the response. Pure.

The model sees every tool as a function. A tool in a namespace becomes `namespace__name`; a custom tool becomes a
function with one parameter, `input`; for built-in tools see `builtin_tools`. The reader skips tools of other types
instead of answering 4xx, since Codex always sends `web_search`.
"""

from collections.abc import Sequence

from msgspec import UNSET, Raw
from msgspec.structs import replace

from engine.chat_template import Tool
from server.protocol.decoding import part
from server.protocol.errors import InvalidRequest
from server.protocol.fields import is_null
from server.protocol.request import TypeAndRole
from server.protocol.tools import CustomTool, FunctionTool, McpServerTool, NamespaceTool, ToolEcho
from server.stream import McpName, ToolCallStarted
from server.tools.builtin_tools import BuiltinTool, builtin_tool
from server.tools.tool_params import (
    TEXT_INPUT,
    CustomParam,
    FunctionParam,
    McpFunction,
    McpParam,
    NamespaceParam,
    format_note,
    read_format,
    read_schema,
)
from server.tools.tool_spec import ANY_TOOL, ToolSpec, qualified_name
from server.tools.unused_members import unused_members


class ToolReader:
    """Read tools. `specs` has the functions by the model's names; the keys of `skipped` are what has no effect.

    The time is linear in the size of the lists, also if each tool replaces an earlier one.
    """

    def __init__(self, nested: bool) -> None:
        """`nested`: True if each tool is inside a field named as its type (Chat Completions)."""
        self._nested = nested
        self._replaces = False
        """True while a tool may replace an earlier one of its name."""
        self._found = False
        """True while the tools are those that a search has found."""
        self._entries: list[ToolEcho] = []
        self._owners: dict[str, int] = {}
        """Index of the entry that has the latest tool of each name for the model."""
        self.specs: dict[str, ToolSpec] = {}
        self.skipped: dict[str, None] = {}

    @property
    def echo(self) -> tuple[ToolEcho, ...]:
        """The entries without the tools that later ones have replaced."""
        left = (self._left(tool, index) for index, tool in enumerate(self._entries))
        return tuple(tool for tool in left if tool is not None)

    def read(self, raws: Sequence[Raw], field: str = "tools", replaces: bool = False, found: bool = False) -> None:
        """Read the tools of a list at `field`. Raises InvalidRequest.

        `replaces`: True if a tool may replace an earlier one of its name, as in items that offer tools again. `found`:
        see ToolSpec; a tool that is offered again as it was stays where it was.
        """
        self._replaces, self._found = replaces, found
        for index, raw in enumerate(raws):
            tool = self._entry(raw, f"{field}[{index}]")
            if tool is not None:
                self._entries.append(tool)

    def _entry(self, raw: Raw, place: str) -> ToolEcho | None:
        """Return the echo of an entry of a list of tools; None if it is skipped."""
        kind = part(raw, TypeAndRole, place).type
        if kind == "namespace":
            return self._namespace(part(raw, NamespaceParam, place), place)
        if kind == "mcp" and not (self._nested or self._replaces):
            return self._mcp(raw, place)
        if not self._nested and (builtin := builtin_tool(raw, kind, place)) is not None:
            self._skip_members(raw, builtin.kind, place)
            return self._builtin(builtin, place)
        return self._tool(raw, place)

    def _namespace(self, space: NamespaceParam, place: str) -> NamespaceTool:
        inner = [self._tool(each, f"{place}.tools[{n}]", space.name) for n, each in enumerate(space.tools)]
        return NamespaceTool(space.name, space.description or "", tuple(filter(None, inner)))

    def _mcp(self, raw: Raw, place: str) -> McpServerTool | None:
        """Return the echo of an MCP server; None if it was not asked for its tools."""
        server = part(raw, McpParam, place)
        if server.functions is None:
            self.skipped["tool mcp"] = None
            return None
        self._skip_members(raw, "mcp", place)
        for function in server.functions if server.listed else (McpFunction(ANY_TOOL),):
            name = self._name(function.name, place, server.server_label)
            schema = read_schema(function.parameters, place)
            kind: McpName = "mcp_approval" if function.approval else "mcp"
            call = ToolCallStarted(function.name, server.server_label, builtin=kind)
            self._add(ToolSpec(Tool(name, function.description or "", schema), call, place))
        return McpServerTool(
            server.server_label,
            server.server_url,
            server.connector_id,
            server.server_description,
            UNSET if is_null(server.allowed_tools) else server.allowed_tools,
            UNSET if is_null(server.require_approval) else server.require_approval,
        )

    def _builtin(self, builtin: BuiltinTool, place: str) -> ToolEcho:
        name = self._name(builtin.tool.name, place, None)
        self._add(ToolSpec(builtin.tool, ToolCallStarted(name, builtin=builtin.kind), place))
        return builtin.echo

    def _tool(self, raw: Raw, place: str, namespace: str | None = None) -> FunctionTool | CustomTool | None:
        """Return the echo of a tool; None if it is skipped."""
        kind = part(raw, TypeAndRole, place).type
        if self._nested:
            place = f"{place}.{kind}"
        match kind:
            case "function":
                self._skip_members(raw, kind, place)
                return self._function(part(raw, FunctionParam, place), place, namespace)
            case "custom":
                self._skip_members(raw, kind, place)
                return self._custom(part(raw, CustomParam, place), place, namespace)
        self.skipped[f"tool {kind or 'without type'}"] = None
        return None

    def _skip_members(self, raw: Raw, kind: str, place: str) -> None:
        """Record the members without effect, but not those of tools that were found: Codex marks them as deferred."""
        if not (self._nested or self._replaces):
            self.skipped |= dict.fromkeys(f"tool {kind}.{member}" for member in unused_members(raw, place))

    def _function(self, tool: FunctionParam, place: str, namespace: str | None) -> FunctionTool:
        name = self._name(tool.name, place, namespace)
        place = f"{place}.parameters"
        function = Tool(name, tool.description or "", read_schema(tool.parameters, place))
        self._add(ToolSpec(function, ToolCallStarted(tool.name, namespace), place, bool(tool.strict)))
        return FunctionTool(tool.name, tool.description, tool.parameters, False)

    def _custom(self, tool: CustomParam, place: str, namespace: str | None) -> CustomTool:
        name = self._name(tool.name, place, namespace)
        place = f"{place}.format"
        input_ = read_format(tool.format, place)
        function = Tool(name, "\n".join(filter(None, [tool.description, format_note(input_)])), TEXT_INPUT)
        call = ToolCallStarted(tool.name, namespace, custom=True, streams=True)
        self._add(ToolSpec(function, call, place, True, input_))
        return CustomTool(tool.name, tool.description, UNSET if is_null(tool.format) else tool.format)

    def _name(self, name: str, place: str, namespace: str | None) -> str:
        """Return the tool's name for the model. Raises InvalidRequest if an earlier tool has it and stays."""
        name = qualified_name(name, namespace)
        if name in self.specs and not self._replaces:
            message = f"`{place}.name`: an earlier tool is named {name!r} too; rename one of them."
            raise InvalidRequest(message, param=f"{place}.name")
        self._owners[name] = len(self._entries)
        return name

    def _add(self, spec: ToolSpec) -> None:
        earlier = self.specs.get(spec.name)
        if self._found and (earlier is None or earlier.found or earlier.tool != spec.tool):
            spec = replace(spec, found=True)
        self.specs[spec.name] = spec

    def _left(self, entry: ToolEcho, index: int) -> ToolEcho | None:
        """Return what is left of an entry; None for nothing."""
        match entry:
            case McpServerTool():
                return entry
            case NamespaceTool():
                owners = self._owners
                left = tuple(t for t in entry.tools if owners[qualified_name(t.name, entry.name)] == index)
                return replace(entry, tools=left) if left or not entry.tools else None
            case _:
                return entry if self._owners[entry.name] == index else None
