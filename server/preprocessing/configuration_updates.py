"""Apply `configuration_update` items: each changes settings from its place on, until a later one replaces them. Pure.

They override the request's own fields, so that a client may leave these unchanged (openai-python 3.57,
`types/responses/response_configuration_update_item.py`).
"""

from collections.abc import Iterator, Sequence

from msgspec import Raw, Struct
from msgspec.structs import replace

from server.protocol.decoding import part
from server.protocol.formats import Format, TextOptions
from server.protocol.request import Effort, ReasoningOptions, Request, TypeAndRole


class ReasoningUpdate(Struct, frozen=True):
    effort: Effort | None = None


class TextUpdate(Struct, frozen=True):
    format: Format


class ConfigurationUpdate(Struct, frozen=True):
    """Item `configuration_update`. A setting that it lacks stays."""

    reasoning: ReasoningUpdate | None = None
    text: TextUpdate | None = None


def configured(request: Request, past: Sequence[Raw], past_field: str) -> tuple[Request, str]:
    """Return the request with the settings in effect, and the field that its schema comes from.

    `past_field`: field that names the items of `past`. Raises InvalidRequest for an item that cannot be read.
    """
    items = request.input if isinstance(request.input, list) else ()
    field = "text.format.schema"
    for place, update in [*_updates(past, past_field), *_updates(items, "input")]:
        if update.reasoning is not None and update.reasoning.effort is not None:
            reasoning = replace(request.reasoning or ReasoningOptions(), effort=update.reasoning.effort)
            request = replace(request, reasoning=reasoning)
        if update.text is not None:
            request = replace(request, text=replace(request.text or TextOptions(), format=update.text.format))
            field = f"{place}.text.format.schema"
    return request, field


def _updates(items: Sequence[Raw], field: str) -> Iterator[tuple[str, ConfigurationUpdate]]:
    """Yield each update with its place."""
    for index, raw in enumerate(items):
        place = f"{field}[{index}]"
        if part(raw, TypeAndRole, place).type == "configuration_update":
            yield place, part(raw, ConfigurationUpdate, place)
