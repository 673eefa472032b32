"""Tools of a request. Pure. Imports `protocol` and `stream`."""

from server.tools.additional_tools import additional_tools
from server.tools.argument_schemas import ANY_OBJECT, arguments_schema, decode_schema
from server.tools.tool_spec import GrammarInput, Input, ToolSpec, by_name, qualified_name
from server.tools.toolbox import NO_TOOLS, Toolbox

__all__ = [
    "ANY_OBJECT",
    "NO_TOOLS",
    "GrammarInput",
    "Input",
    "ToolSpec",
    "Toolbox",
    "additional_tools",
    "arguments_schema",
    "by_name",
    "decode_schema",
    "qualified_name",
]
