"""The conversation that the model answers: a request and the items before it as messages. Pure."""

from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct

from engine.chat_template import Message
from server.prompt.compacted_history import without_compacted
from server.prompt.compaction import is_triggered
from server.prompt.items import InputReader, ItemPlace, ItemText, PlacedEntry, ReasoningEntry, item_texts
from server.prompt.messages import merge_system_messages, to_messages
from server.prompt.options import past_field
from server.protocol import formats
from server.protocol.errors import InvalidRequest
from server.protocol.formats import Format
from server.protocol.request import Request
from server.tools import NO_TOOLS, Toolbox

APPROVAL = "item mcp_approval_response"
"""Name of a skipped approval."""
INSTRUCTIONS = ItemPlace("instructions", None, "message")


class PromptMessages(Struct, frozen=True):
    """Messages for the chat template, and the names of skipped items for the log."""

    messages: tuple[Message, ...]
    skipped: tuple[str, ...]
    open_ended: bool = False
    """True if the prompt ends where any message of the user may follow."""
    items: tuple[ItemText, ...] = ()
    """Texts of the prompt with their places in the request."""


def messages_of(request: Request, past: Sequence[msgspec.Raw] = (), toolbox: Toolbox = NO_TOOLS) -> PromptMessages:
    """Return the conversation that the model answers. `past`: items of earlier turns, oldest first.

    The input may be empty or missing if there is a past. Raises InvalidRequest if the input has nothing that the model
    can read, or a part that a text model cannot read.
    """
    reader, note = InputReader(toolbox.found), format_note(request.format, toolbox)
    if _is_beginning(request, past, toolbox):
        return prompt_messages((), reader, request.instructions, note=note, open_ended=True)
    if request.input is None and not past:
        raise InvalidRequest("`input` is missing: send a text or a list of items.", param="input")
    earlier = list(reader.entries(past, past_field(request), past=True))
    new = list(_input_entries(request.input, reader))
    if request.input or not past:
        _require_content([*earlier, *new] if is_triggered(request) else new, reader.skipped, "input")
    entries = without_compacted([*earlier, *new])
    if request.reasoning is not None and request.reasoning.context == "current_turn":
        entries = _without_earlier_reasoning(entries)
    return prompt_messages(entries, reader, request.instructions, note=note)


def _without_earlier_reasoning(entries: Sequence[PlacedEntry]) -> list[PlacedEntry]:
    """Return the entries without the reasoning before the user's last message."""
    users = [i for i, each in enumerate(entries) if isinstance(each.entry, Message) and each.entry.role == "user"]
    last = users[-1] if users else 0
    return [each for i, each in enumerate(entries) if i > last or not isinstance(each.entry, ReasoningEntry)]


def _is_beginning(request: Request, past: Sequence[msgspec.Raw], toolbox: Toolbox) -> bool:
    """True if the request prewarms instructions or tools, and has no message."""
    return not (request.input or past) and request.prewarms and bool(request.instructions or toolbox.specs)


def format_note(format_: Format, toolbox: Toolbox) -> str:
    """Return the sentence that describes the format to the model; empty if its answer must be a call."""
    return "" if toolbox.must_call else formats.prompt_text(format_, with_calls=bool(toolbox.specs))


def prompt_messages(
    entries: Sequence[PlacedEntry],
    reader: InputReader,
    instructions: str | None = None,
    name: str = "input",
    note: str = "",
    open_ended: bool = False,
) -> PromptMessages:
    """Return the messages of entries, which `reader` has read, with `note` after the instructions.

    `name`: field of the request that the entries come from. Raises InvalidRequest if there is nothing to answer, unless
    the prompt is `open_ended`.
    """
    if not open_ended:
        _require_content(entries, reader.skipped, name)
    leading = [Message("system", instructions)] if instructions else []
    messages = merge_system_messages([*leading, *to_messages([each.entry for each in entries])], note)
    first = [ItemText(INSTRUCTIONS, instructions)] if instructions else []
    items = (*first, *item_texts(entries, reader.content.breakpoints))
    return PromptMessages(tuple(messages), tuple(reader.skipped), open_ended, items)


def _input_entries(input_: str | list[msgspec.Raw] | None, reader: InputReader) -> Iterator[PlacedEntry]:
    if isinstance(input_, list):
        yield from reader.entries(input_, "input")
    elif input_:
        yield PlacedEntry(Message("user", input_), ItemPlace("input", None, "message"))


def _require_content(entries: Sequence[PlacedEntry], skipped: Sequence[str], name: str) -> None:
    """Raise InvalidRequest if no entry is more than reasoning."""
    if all(isinstance(each.entry, ReasoningEntry) for each in entries):
        because = f"; skipped: {', '.join(dict.fromkeys(skipped))}" if skipped else ""
        advice = " Send the MCP tool of the approval in `tools` again." if APPROVAL in skipped else ""
        raise InvalidRequest(f"`{name}` has no text for the model to answer{because}.{advice}", param=name)
