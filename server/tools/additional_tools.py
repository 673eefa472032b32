"""Find tools that items of the input offer, beside those in `tools` of the request. Pure.

`additional_tools` offers tools from its place on, and `tool_search_output` those that a search has found (openai-python
3.57, `types/responses/response_input_item.py`). Codex sends all of its tools in this way with models that it knows.
"""

from collections.abc import Iterator, Sequence

from msgspec import Raw, Struct

from server.protocol.decoding import part
from server.protocol.request import TypeAndRole

SEARCH = "tool_search_output"
KINDS = ("additional_tools", SEARCH)
"""Types of items that offer tools."""


class AdditionalTools(Struct, frozen=True):
    """Tools of one item."""

    place: str
    """Path of the list in the request."""
    tools: Sequence[Raw]
    found: bool = False
    """True if a search has found them, so that the prompt has them in its output, after all that is cached."""


class _Item(Struct, frozen=True):
    tools: list[Raw] | None = None


def additional_tools(raws: Sequence[Raw], field: str) -> Iterator[AdditionalTools]:
    """Yield the tools of each item that offers some. `field`: name of the list. Raises InvalidRequest."""
    for index, raw in enumerate(raws):
        place = f"{field}[{index}]"
        kind = part(raw, TypeAndRole, place).type
        if kind in KINDS:
            yield AdditionalTools(f"{place}.tools", part(raw, _Item, place).tools or (), kind == SEARCH)
