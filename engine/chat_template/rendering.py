"""Adapt a conversation to the capabilities of a template. Pure.

Templates support different messages; many raise on an unexpected message, or drop it silently.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine.chat_template.efforts import EFFORT_WORDS
from engine.chat_template.message import Call, Message, Tool

Turn: TypeAlias = dict[str, Any]
"""A message as templates see it, with JSON values."""
Clean: TypeAlias = Callable[[str], str]
"""Applied to each text of people or models before the template sees it."""
WriteCalls: TypeAlias = Callable[[Sequence[Call], Clean], str]
"""Writes calls with the family's markers; names and values are cleaned."""

MAX_NESTING = 32
"""Levels of arguments that are passed as objects; deeper arguments are passed as text."""


class ArgumentsForm(Struct, frozen=True):
    """Format of calls in a message."""

    mapping: bool
    """True if arguments are an object; otherwise JSON as text."""
    empty: str | None
    """Content of a message that has only calls."""
    short_ids: bool
    """True if an id must have nine letters or digits, or at least nine (Mistral); otherwise ids stay unchanged."""


class TemplateCapabilities(Struct, frozen=True):
    """Capabilities of a template. The defaults are the minimum."""

    system: bool = False
    """True if a conversation may begin with a system message."""
    later_system: bool = False
    """True if a system message may follow other messages."""
    consecutive_roles: bool = False
    """True if one role may write consecutive messages."""
    form: ArgumentsForm | None = None
    """Format of calls; without it, calls and their outputs are rendered as text."""
    parallel: bool = False
    """True if a message may have several calls."""
    text_beside_calls: bool = False
    """True if the text of a message with calls is rendered. Otherwise the text becomes a message before the calls, if
    `consecutive_roles` or `text_before_calls` permits that."""
    reasoning: str = ""
    """Field of the assistant's reasoning; empty if the template renders none."""
    effort: bool = False
    """True if the effort changes the prompt."""
    tools: bool = False
    """True if the template lists the functions. Otherwise a system message lists them."""
    text_before_calls: bool = False
    """True if a text message may precede calls although roles must alternate, because messages with calls don't count
    (Mistral)."""
    efforts: tuple[str, ...] = EFFORT_WORDS
    """Accepted values of `reasoning_effort` (Hy3 rejects `medium`)."""
    drops_system: bool = False
    """True if the template drops the system message of a conversation that ends with an output (Mistral-Nemo)."""
    outputs: bool = False
    """True if messages of role `tool` have their own format although calls have none (LFM2)."""


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
    if any(message.calls or message.role == "tool" for message in messages):
        if capabilities.form is not None:
            messages = list(_split_calls(messages, capabilities))
        elif write_calls is not None:
            written = [_with_written_calls(message, write_calls, clean) for message in messages]
            messages, clean = [_as_text(message, capabilities.outputs) for message in written], str
        else:
            messages = [_as_text(message, outputs=False) for message in messages]
    messages = _adapt_roles(messages, capabilities)
    ids = {message.call_id: f"{n:09}" for n, message in enumerate(messages) if message.role == "tool"}
    return [_turn(message, capabilities, ids, clean) for message in messages]


def _adapt_roles(messages: Sequence[Message], capabilities: TemplateCapabilities) -> Sequence[Message]:
    """Move and join the messages whose role the template does not accept at their place."""
    if capabilities.drops_system and messages and messages[-1].role == "tool":
        capabilities = replace(capabilities, system=False)
    if not (capabilities.system and capabilities.later_system):
        messages = list(_move_system(messages, capabilities))
    if not capabilities.consecutive_roles:
        messages = list(_alternate_roles(messages, capabilities.text_before_calls))
    return messages


def clean_variables(variables: Mapping[str, Any], clean: Clean = str) -> dict[str, Any]:
    """Return a client's own variables, cleaned. Raises RecursionError if one is nested too deeply."""
    return {name: _cleaned(value, clean, MAX_SCHEMA_NESTING) for name, value in variables.items()}


def render_tools(tools: Sequence[Tool], clean: Clean = str) -> list[Turn]:
    """Return functions in the format of templates, cleaned. Raises RecursionError if a schema is nested too deeply."""
    return [
        {
            "type": "function",
            "function": {
                "name": clean(tool.name),
                "description": clean(tool.description),
                "parameters": _cleaned(msgspec.json.decode(tool.parameters), clean, MAX_SCHEMA_NESTING),
            },
        }
        for tool in tools
    ]


def with_tools(messages: Sequence[Message], tools: Sequence[Tool]) -> list[Message]:
    """Add the functions to the first system message, for templates that do not list them."""
    listed = TOOLS_PROMPT + "\n".join(msgspec.json.encode(tool).decode() for tool in render_tools(tools))
    if messages and messages[0].role == "system":
        return [replace(messages[0], content=_joined(messages[0].content, listed)), *messages[1:]]
    return [Message("system", listed), *messages]


TOOLS_PROMPT = (
    "You can call functions. To call one, write nothing but this:\n"
    '<tool_call>\n{"name": "the function\'s name", "arguments": {"its parameter": "value"}}\n</tool_call>\n'
    "What it gives is told to you in the next message. Call one only if it helps; otherwise answer in plain words.\n"
    "These are the functions, each with the JSON schema of its parameters:\n"
)
MAX_SCHEMA_NESTING = 64
"""Levels of a function's parameters."""


def _as_text(message: Message, outputs: bool) -> Message:
    """Render calls as text of the assistant. Render an output as text of the user unless `outputs` is set."""
    if message.role == "tool":
        return message if outputs else Message("user", message.content)
    texts = [message.content, *map(generic_call, message.calls)]
    return replace(message, content="\n".join(filter(None, texts)), calls=()) if message.calls else message


def _with_written_calls(message: Message, write_calls: WriteCalls, clean: Clean) -> Message:
    """Clean a message and append its calls to its text."""
    texts = [clean(message.content), write_calls(message.calls, clean) if message.calls else ""]
    return Message(
        message.role,
        "\n".join(filter(None, texts)),
        clean(message.reasoning),
        name=clean(message.name),
        call_id=clean(message.call_id),
    )


def generic_call(call: Call) -> str:
    """Return a call in the format of `TOOLS_PROMPT`, since a model imitates earlier calls."""
    arguments = call.arguments or "{}"
    try:
        msgspec.json.decode(arguments, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        arguments = msgspec.json.encode({"input": arguments}).decode()
    return f'<tool_call>\n{{"name": {msgspec.json.encode(call.name).decode()}, "arguments": {arguments}}}\n</tool_call>'


def _split_calls(messages: Sequence[Message], capabilities: TemplateCapabilities) -> Iterator[Message]:
    """Separate text from calls, and move each call before its output, as far as the template needs it."""
    pending: deque[Call] = deque()
    for message in messages:
        apart = not capabilities.text_beside_calls and (
            capabilities.consecutive_roles or capabilities.text_before_calls
        )
        if message.calls and message.content and apart:
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
            moved = _joined(moved, message.content)
            continue
        if moved and message.role == "user":
            message = replace(message, content=_joined(moved, message.content))
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
            content, reasoning = _joined(last.content, message.content), _joined(last.reasoning, message.reasoning)
            message = replace(message, content=content, reasoning=reasoning)
        elif last is not None:
            yield last
        last = message
    if last is not None:
        yield last


def _joined(*texts: str) -> str:
    return "\n\n".join(filter(None, texts))


def _turn(message: Message, capabilities: TemplateCapabilities, ids: Mapping[str, str], clean: Clean) -> Turn:
    turn: Turn = {"role": message.role, "content": clean(message.content)}
    form = capabilities.form

    def arguments(call: Call) -> Any:
        return as_object(call.arguments, clean) if form and form.mapping else clean(call.arguments)

    if message.reasoning and capabilities.reasoning:
        turn[capabilities.reasoning] = clean(message.reasoning)
    if message.calls and form is not None:
        turn["content"] = turn["content"] or form.empty
        turn["tool_calls"] = [
            {
                "id": _id(call.id, form, ids, clean),
                "type": "function",
                "function": {"name": clean(call.name), "arguments": arguments(call)},
            }
            for call in message.calls
        ]
    if message.role == "tool":
        turn |= {"name": clean(message.name), "tool_call_id": _id(message.call_id, form, ids, clean)}
    return turn


def _id(id_: str, form: ArgumentsForm | None, ids: Mapping[str, str], clean: Clean) -> str:
    return ids[id_] if form and form.short_ids else clean(id_)


def as_object(arguments: str, clean: Clean) -> dict[str, Any]:
    """Return a call's arguments. Anything but an object becomes the argument `input`, as for text tools."""
    try:
        decoded = msgspec.json.decode(arguments or "{}", type=dict[str, Any])
        return {clean(key): _cleaned(value, clean, MAX_NESTING - 1) for key, value in decoded.items()}
    except (msgspec.DecodeError, RecursionError):
        return {"input": clean(arguments)}


def _cleaned(value: Any, clean: Clean, depth: int) -> Any:
    """Return a value with all its texts and keys cleaned. Raises RecursionError."""
    if depth == 0:
        raise RecursionError
    match value:
        case str():
            return clean(value)
        case list():
            return [_cleaned(inner, clean, depth - 1) for inner in value]
        case dict():
            return {clean(key): _cleaned(inner, clean, depth - 1) for key, inner in value.items()}
    return value
