"""A conversation, told as a template wants it. Pure.

Templates differ in what they read, and many refuse what they don't expect, or leave it out without a word.
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
"""A message as templates see it; its values are what JSON has."""
Clean: TypeAlias = Callable[[str], str]
"""What becomes of each text that people or models wrote, before the template sees it."""
WriteCalls: TypeAlias = Callable[[Sequence[Call], Clean], str]
"""Writes calls as a family does, markers and all; names and values are cleaned."""

MOST_NESTED = 32
"""Levels of arguments that are handed on as objects; deeper ones as text."""


class ArgumentsForm(Struct, frozen=True):
    """How calls stand in a message."""

    mapping: bool
    """Whether arguments are an object, else JSON as text."""
    empty: str | None
    """What stands for the text of a message that has only calls."""
    short_ids: bool
    """True if a call's id must have nine letters or digits, or at least nine (Mistral); else it is as it came."""


class TemplateCapabilities(Struct, frozen=True):
    """What a template reads, and what it would refuse. By default next to nothing."""

    system: bool = False
    """Whether a conversation may begin with a system message."""
    later_system: bool = False
    """Whether one may stand elsewhere."""
    repeats: bool = False
    """Whether the same role may speak twice in a row."""
    form: ArgumentsForm | None = None
    """Without one, calls and their outputs are told as text."""
    parallel: bool = False
    """Whether a message may have several calls."""
    text_beside_calls: bool = False
    """Whether the text of a message with calls is read. If not, it goes before in a message of its own, where
    `repeats` or `text_before_calls` allows that."""
    reasoning: str = ""
    """The field in which the assistant's reasoning is looked for; empty where it is in none."""
    effort: bool = False
    """Whether it writes something else when the model is not to think."""
    tools: bool = False
    """Whether it tells the model which functions there are. If not, that is said in a system message."""
    text_before_calls: bool = False
    """True if that text may stand before the calls although the same role may not speak twice: messages with calls
    don't count there (Mistral)."""
    efforts: tuple[str, ...] = EFFORT_WORDS
    """Values of `reasoning_effort` that it takes (Hy3 refuses `medium`)."""
    loses_system: bool = False
    """True if a conversation that ends with an output is written without its system message (Mistral-Nemo)."""
    outputs: bool = False
    """True if a message of role `tool` has words of its own, though calls have none (LFM2)."""


_SILENCE = " "
"""What somebody says who says nothing: some templates refuse an empty text."""


def adapt_messages(
    messages: Sequence[Message],
    manners: TemplateCapabilities,
    clean: Clean = str,
    write_calls: WriteCalls | None = None,
) -> list[Turn]:
    """The conversation as the template wants it. Nothing is left out, but for reasoning that it doesn't read.

    `write_calls`: for a template that reads no calls; without it they are in the form of `TOOLS_TOLD`."""
    if any(message.calls or message.role == "tool" for message in messages):
        if manners.form is None and write_calls is not None:
            messages, clean = [_written(message, write_calls, clean) for message in messages], str
        if manners.form is None:
            messages = [_told(message, manners.outputs and write_calls is not None) for message in messages]
        else:
            messages = list(_calls_told(messages, manners))
    if manners.loses_system and messages and messages[-1].role == "tool":
        manners = replace(manners, system=False)
    if not (manners.system and manners.later_system):
        messages = list(_system_told(messages, manners))
    if not manners.repeats:
        messages = list(_taking_turns(messages, manners.text_before_calls))
    ids = {message.call_id: f"{n:09}" for n, message in enumerate(messages) if message.role == "tool"}
    return [_turn(message, manners, ids, clean) for message in messages]


def variables_told(variables: Mapping[str, Any], clean: Clean = str) -> dict[str, Any]:
    """A client's own variables. Raises RecursionError where one is nested too deeply."""
    return {name: _cleaned(value, clean, MOST_NESTED_SCHEMA) for name, value in variables.items()}


def tools_told(tools: Sequence[Tool], clean: Clean = str) -> list[Turn]:
    """Functions as templates see them. Raises RecursionError where a schema is nested too deeply."""
    return [
        {
            "type": "function",
            "function": {
                "name": clean(tool.name),
                "description": clean(tool.description),
                "parameters": _cleaned(msgspec.json.decode(tool.parameters), clean, MOST_NESTED_SCHEMA),
            },
        }
        for tool in tools
    ]


def with_tools(messages: Sequence[Message], tools: Sequence[Tool]) -> list[Message]:
    """For templates that know of no functions: they stand in the first system message."""
    told = TOOLS_TOLD + "\n".join(msgspec.json.encode(tool).decode() for tool in tools_told(tools))
    if messages and messages[0].role == "system":
        return [replace(messages[0], content=_joined(messages[0].content, told)), *messages[1:]]
    return [Message("system", told), *messages]


TOOLS_TOLD = (
    "You can call functions. To call one, write nothing but this:\n"
    '<tool_call>\n{"name": "the function\'s name", "arguments": {"its parameter": "value"}}\n</tool_call>\n'
    "What it gives is told to you in the next message. Call one only if it helps; otherwise answer in plain words.\n"
    "These are the functions, each with the JSON schema of its parameters:\n"
)
MOST_NESTED_SCHEMA = 64
"""Levels of a function's parameters."""


def _told(message: Message, outputs: bool) -> Message:
    """Calls as the assistant's text, outputs as the user's, unless these have words of their own."""
    if message.role == "tool":
        return message if outputs else Message("user", message.content)
    texts = [message.content, *map(generic_call, message.calls)]
    return replace(message, content="\n".join(filter(None, texts)), calls=()) if message.calls else message


def _written(message: Message, write_calls: WriteCalls, clean: Clean) -> Message:
    """Clean a message, and put its calls behind its text."""
    texts = [clean(message.content), write_calls(message.calls, clean) if message.calls else ""]
    return Message(
        message.role,
        "\n".join(filter(None, texts)),
        clean(message.reasoning),
        name=clean(message.name),
        call_id=clean(message.call_id),
    )


def generic_call(call: Call) -> str:
    """As `TOOLS_TOLD` has it: a model writes the next call as it sees the last one."""
    arguments = call.arguments or "{}"
    try:
        msgspec.json.decode(arguments, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        arguments = msgspec.json.encode({"input": arguments}).decode()
    return f'<tool_call>\n{{"name": {msgspec.json.encode(call.name).decode()}, "arguments": {arguments}}}\n</tool_call>'


def _calls_told(messages: Sequence[Message], manners: TemplateCapabilities) -> Iterator[Message]:
    """Text and calls apart; each call in a message of its own, directly before its output: as far as it is needed."""
    waiting: deque[Call] = deque()
    for message in messages:
        apart = not manners.text_beside_calls and (manners.repeats or manners.text_before_calls)
        if message.calls and message.content and apart:
            yield replace(message, reasoning="", calls=())
            message = replace(message, content="")
        if not manners.parallel and len(message.calls) > 1:
            waiting.extend(message.calls[1:])
            message = replace(message, calls=message.calls[:1])
        yield message
        if message.role == "tool" and waiting:
            yield Message("assistant", "", calls=(waiting.popleft(),))


def _system_told(messages: Sequence[Message], manners: TemplateCapabilities) -> Iterator[Message]:
    """System messages that would be refused or overlooked, at the beginning of what the user says next."""
    held = ""
    for index, message in enumerate(messages):
        if message.role == "system" and not (manners.later_system if index else manners.system):
            held = _joined(held, message.content)
            continue
        if held and message.role == "user":
            message = replace(message, content=_joined(held, message.content))
        elif held:
            yield Message("user", held)
        held = ""
        yield message
    if held:
        yield Message("user", held)


def _taking_turns(messages: Sequence[Message], apart: bool) -> Iterator[Message]:
    """Join what one role says in a row, and put an empty message where the other should have spoken. `apart`: True
    if text before calls is a message of its own.

    Calls and outputs are outside of that order (Mistral's templates say so).
    """
    spoke = "assistant"
    for message in _at_a_stretch(messages, apart):
        if message.role in ("user", "assistant") and not message.calls:
            if message.role == spoke:
                yield Message("user" if spoke == "assistant" else "assistant", _SILENCE)
            spoke = message.role
            yield message if message.content else replace(message, content=_SILENCE)
        else:
            yield message


def _at_a_stretch(messages: Sequence[Message], apart: bool) -> Iterator[Message]:
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


def _turn(message: Message, manners: TemplateCapabilities, ids: Mapping[str, str], clean: Clean) -> Turn:
    turn: Turn = {"role": message.role, "content": clean(message.content)}
    form = manners.form

    def arguments(call: Call) -> Any:
        return as_object(call.arguments, clean) if form and form.mapping else clean(call.arguments)

    if message.reasoning and manners.reasoning:
        turn[manners.reasoning] = clean(message.reasoning)
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
    """Return a call's arguments. Anything but an object becomes the one argument `input`, as for tools that take a
    text."""
    try:
        decoded = msgspec.json.decode(arguments or "{}", type=dict[str, Any])
        return {clean(key): _cleaned(value, clean, MOST_NESTED - 1) for key, value in decoded.items()}
    except (msgspec.DecodeError, RecursionError):
        return {"input": clean(arguments)}


def _cleaned(value: Any, clean: Clean, depth: int) -> Any:
    """With all texts cleaned, those that escapes hid too. Raises RecursionError."""
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
