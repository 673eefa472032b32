"""Adapt a conversation to the capabilities of a template. Pure.

Templates support different messages; many raise on an unexpected message, or drop it silently.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from engine.chat_template.capabilities import CallFields, TemplateCapabilities
from engine.chat_template.message import Call, Message
from engine.chat_template.values import Clean, Turn, WriteCalls, as_object, cleaned_content, generic_call, joined

PLACEHOLDER = " "
"""Content of an empty message: some templates reject an empty text."""


def adapt_messages(
    messages: Sequence[Message],
    capabilities: TemplateCapabilities,
    clean: Clean = str,
    write_calls: WriteCalls | None = None,
) -> list[Turn]:
    """Return the turns of a conversation for a template. Only reasoning that the template does not render is dropped.

    `write_calls` writes calls for a template that renders none; without it they have the format of `TOOLS_PROMPT`.
    """
    if any(message.is_of_call for message in messages):
        messages, clean = _adapt_calls(messages, capabilities, clean, write_calls)
    messages = _adapt_roles(messages, capabilities)
    ids = _ids(messages, capabilities.call_fields.ids if capabilities.call_fields else "", clean)
    return [_turn(message, capabilities, ids, clean) for message in messages]


def _adapt_calls(
    messages: Sequence[Message], capabilities: TemplateCapabilities, clean: Clean, write_calls: WriteCalls | None
) -> tuple[Sequence[Message], Clean]:
    """Write the calls as text if the template has no format for them. Return the messages, and how to clean them."""
    if capabilities.call_fields is not None:
        return list(_split_calls(messages, capabilities)), clean
    if write_calls is None:
        return [_as_text(message, outputs=False) for message in messages], clean
    written = [_with_written_calls(message, write_calls, clean) for message in messages]
    return [_as_text(message, capabilities.outputs) for message in written], str


def _adapt_roles(messages: Sequence[Message], capabilities: TemplateCapabilities) -> Sequence[Message]:
    """Move and join the messages whose role the template does not accept at their place."""
    if capabilities.drops_system and messages and messages[-1].role == "tool":
        capabilities = replace(capabilities, system=False)
    if not (capabilities.system and capabilities.later_system):
        messages = list(_move_system(messages, capabilities))
    if not capabilities.consecutive_roles:
        messages = list(_alternate_roles(messages, capabilities.text_before_calls))
    return messages


def _as_text(message: Message, outputs: bool) -> Message:
    """Render calls as text of the assistant. Render an output as text of the user unless `outputs` is set."""
    if message.role == "tool":
        return message if outputs else Message("user", message.content)
    texts = [message.content, *map(generic_call, message.calls)]
    return replace(message, content="\n".join(filter(None, texts)), calls=()) if message.calls else message


def _with_written_calls(message: Message, write_calls: WriteCalls, clean: Clean) -> Message:
    """Clean a message and append its calls to its text."""
    texts = [cleaned_content(message, clean), write_calls(message.calls, clean) if message.calls else ""]
    return Message(
        message.role,
        "\n".join(filter(None, texts)),
        clean(message.reasoning),
        name=clean(message.name),
        call_id=clean(message.call_id),
    )


def _split_calls(messages: Sequence[Message], capabilities: TemplateCapabilities) -> Iterator[Message]:
    """Separate text from calls, and move each call before its output, as far as the template needs it."""
    pending: deque[Call] = deque()
    for message in messages:
        if message.calls and message.content and capabilities.separates_text:
            yield replace(message, reasoning="", calls=())
            message = replace(message, content="")
        if not capabilities.parallel and len(message.calls) > 1:
            pending.extend(message.calls[1:])
            message = replace(message, calls=message.calls[:1])
        yield message
        if message.role == "tool" and pending:
            yield Message("assistant", "", calls=(pending.popleft(),))


def _move_system(messages: Sequence[Message], capabilities: TemplateCapabilities) -> Iterator[Message]:
    """Move unsupported system messages to the beginning of the next user message."""
    moved = ""
    for index, message in enumerate(messages):
        if message.role == "system" and not (capabilities.later_system if index else capabilities.system):
            moved = joined(moved, message.content)
            continue
        if moved and message.role == "user":
            message = replace(message, content=joined(moved, message.content))
        elif moved:
            yield Message("user", moved)
        moved = ""
        yield message
    if moved:
        yield Message("user", moved)


def _alternate_roles(messages: Sequence[Message], apart: bool) -> Iterator[Message]:
    """Join consecutive messages of one role, and insert a placeholder where the other role is missing.

    `apart` is True if text before calls is a separate message. Calls and outputs are exempt, as in Mistral's templates.
    """
    last_role = "assistant"
    for message in _join_consecutive(messages, apart):
        if message.role in ("user", "assistant") and not message.calls:
            if message.role == last_role:
                yield Message("user" if last_role == "assistant" else "assistant", PLACEHOLDER)
            last_role = message.role
            yield message if message.content else replace(message, content=PLACEHOLDER)
        else:
            yield message


def _join_consecutive(messages: Sequence[Message], apart: bool) -> Iterator[Message]:
    last: Message | None = None
    for message in messages:
        goes_on = last is not None and not last.calls and not (apart and message.calls)
        if goes_on and last is not None and last.role == message.role in ("user", "assistant"):
            content, reasoning = joined(last.content, message.content), joined(last.reasoning, message.reasoning)
            message = replace(message, content=content, reasoning=reasoning)
        elif last is not None:
            yield last
        last = message
    if last is not None:
        yield last


def _ids(messages: Sequence[Message], numbering: str, clean: Clean) -> dict[str, str]:
    """Return the id for the template by the client's id; `numbering` is `CallFields.ids`."""
    if numbering == "digits":
        return {message.call_id: f"{n:09}" for n, message in enumerate(messages) if message.role == "tool"}
    found: dict[str, str] = {}
    earlier = 0
    for message in messages if numbering else ():
        for n, call in enumerate(message.calls, 0 if numbering == "message" else earlier):
            found[call.id] = f"functions.{clean(call.name)}:{n}"
        earlier += len(message.calls)
    return found


def _turn(message: Message, capabilities: TemplateCapabilities, ids: Mapping[str, str], clean: Clean) -> Turn:
    turn: Turn = {"role": message.role, "content": cleaned_content(message, clean)}
    fields = capabilities.call_fields
    if message.reasoning and capabilities.reasoning:
        turn[capabilities.reasoning] = clean(message.reasoning)
    if fields is not None and fields.metadata and message.is_of_call:
        return turn | _with_metadata(message, clean)
    if message.calls and fields is not None:
        turn["content"] = turn["content"] or fields.empty
        turn["tool_calls"] = _tool_calls(message.calls, fields, ids, clean)
    return turn | _of_output(message, ids, clean) if message.role == "tool" else turn


def _of_output(message: Message, ids: Mapping[str, str], clean: Clean) -> Turn:
    return {"name": clean(message.name), "tool_call_id": _id(message.call_id, ids, clean)}


def _id(id_: str, ids: Mapping[str, str], clean: Clean) -> str:
    return ids.get(id_) or clean(id_)


def _tool_calls(
    calls: Sequence[Call], fields: CallFields, ids: Mapping[str, str], clean: Clean
) -> list[dict[str, Any]]:
    return [_tool_call(call, fields, ids, clean) for call in calls]


def _tool_call(call: Call, fields: CallFields, ids: Mapping[str, str], clean: Clean) -> dict[str, Any]:
    arguments = as_object(call.arguments, clean) if fields.mapping else clean(call.arguments)
    function = {"name": clean(call.name), "arguments": arguments}
    return {"id": _id(call.id, ids, clean), "type": "function", "function": function}


def _with_metadata(message: Message, clean: Clean) -> Turn:
    if message.role == "tool":
        return {"role": "observation"}
    call = message.calls[0]
    return {"metadata": clean(call.name), "content": clean(call.arguments or "{}")}
