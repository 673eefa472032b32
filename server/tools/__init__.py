"""The tools of a request, pure. Imports `protocol` and `stream`."""

from server.tools.argument_schemas import ANY_OBJECT, arguments_of, decoded
from server.tools.tool_reader import GrammarInput, Input, Offer, by_name, flat
from server.tools.toolbox import NO_TOOLS, Toolbox

__all__ = [
    "ANY_OBJECT",
    "NO_TOOLS",
    "GrammarInput",
    "Input",
    "Offer",
    "Toolbox",
    "arguments_of",
    "by_name",
    "decoded",
    "flat",
]
