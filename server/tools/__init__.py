"""The tools of a request, pure. Imports `protocol` and `stream`."""

from server.tools.argument_schemas import ANY_OBJECT, arguments_of, decoded
from server.tools.tool_reader import GrammarInput, Input, ToolSpec, by_name, qualified_name
from server.tools.toolbox import NO_TOOLS, Toolbox

__all__ = [
    "ANY_OBJECT",
    "NO_TOOLS",
    "GrammarInput",
    "Input",
    "ToolSpec",
    "Toolbox",
    "arguments_of",
    "by_name",
    "decoded",
    "qualified_name",
]
