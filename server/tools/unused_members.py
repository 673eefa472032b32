"""Members of tools that have no effect here (openai-python 3.57, `function_tool_param.py` and others). Pure."""

from collections.abc import Iterator

from msgspec import Raw, Struct

from server.protocol.decoding import part
from server.protocol.fields import is_null
from server.protocol.request import NULL

DIRECT = "direct"
"""Caller that is the model itself; the others are programs that OpenAI runs."""


class _Members(Struct):
    defer_loading: bool | None = None
    """True to offer the tool only once a search of OpenAI's servers has found it: here it is offered at once."""
    allowed_callers: list[str] | None = None
    output_schema: Raw = NULL
    """Schema of the outputs, for programs that call the tool."""


def unused_members(raw: Raw, place: str) -> Iterator[str]:
    """Yield the names of such members. Raises InvalidRequest."""
    members = part(raw, _Members, place)
    if members.defer_loading:
        yield "defer_loading"
    if members.allowed_callers is not None and members.allowed_callers != [DIRECT]:
        yield "allowed_callers"
    if not is_null(members.output_schema):
        yield "output_schema"
