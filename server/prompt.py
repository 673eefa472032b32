"""Request -> messages -> engine Job. Pure."""

import base64
import binascii
from collections.abc import Iterator, Sequence
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import Struct

from engine import Job, Message, Sampling
from server.errors import InvalidRequest
from server.schema import (
    FilePart,
    FunctionCall,
    FunctionCallOutput,
    MessageItem,
    RefusalPart,
    Request,
    TextPart,
    Typed,
    part,
)

ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
"""The API's roles -> the templates'. Templates of open models don't know `developer`."""


class Conversation(Struct, frozen=True):
    """What is left of the input for the model, and what was skipped (for the log)."""

    messages: tuple[Message, ...]
    skipped: tuple[str, ...]


def conversation(request: Request, past: Sequence[msgspec.Raw] = ()) -> Conversation:
    """`past`: the items of the responses that this one goes on from; their instructions are not inherited.

    Raises InvalidRequest where nothing is left of the input, or a part can't be read by a text model."""
    skipped: list[str] = []
    messages = [Message("system", request.instructions)] if request.instructions else []
    if request.input is None:
        raise InvalidRequest("`input` is missing: send a text or a list of items.", param="input")
    said = list(_messages(request.input, skipped))
    if not said:
        raise InvalidRequest(f"Nothing is left of `input` for the model to answer{_because(skipped)}.", param="input")
    before = _messages(list(past), skipped, "previous_response_id")
    return Conversation(tuple(_merged([*messages, *before, *said])), tuple(skipped))


def sampling(request: Request, default: Sampling) -> Sampling:
    """`default` where the request says nothing."""
    wished = {field: getattr(request, field) for field in Sampling.__struct_fields__}
    return msgspec.structs.replace(default, **{k: v for k, v in wished.items() if v is not None})


def stops(request: Request) -> tuple[str, ...]:
    if request.stop is None:
        return ()
    return (request.stop,) if isinstance(request.stop, str) else tuple(request.stop)


def job(request: Request, prompt: Sequence[int], sampling: Sampling, n_ctx: int) -> Job:
    """Raises InvalidRequest where `prompt` (tokens) leaves no room for an answer."""
    room = n_ctx - len(prompt)
    if room < 1:
        raise InvalidRequest(
            f"The input has {len(prompt)} tokens, and the model's context holds {n_ctx}. "
            "Shorten the input, or start the server with a larger --context.",
            param="input",
            code="context_length_exceeded",
        )
    return Job(tuple(prompt), min(request.max_output_tokens or room, room), sampling)


def _messages(input_: str | list[msgspec.Raw], skipped: list[str], name: str = "input") -> Iterator[Message]:
    if isinstance(input_, str):
        if input_:
            yield Message("user", input_)
        return
    for index, raw in enumerate(input_):
        place = f"{name}[{index}]"
        match part(raw, Typed, place):
            case Typed("message", _) | Typed(None, str()):
                yield _message(raw, place, skipped)
            case Typed("function_call"):
                call = part(raw, FunctionCall, place)
                yield Message("assistant", f"{call.name}({call.arguments})")
            case Typed("function_call_output"):
                output = part(raw, FunctionCallOutput, place)
                yield Message("user", _text(output.output, f"{place}.output", skipped))
            case Typed(kind):
                skipped.append(f"item {kind or 'without type and role'}")


def _message(raw: msgspec.Raw, place: str, skipped: list[str]) -> Message:
    item = part(raw, MessageItem, place)
    if item.role not in ROLES:
        raise InvalidRequest(
            f"`{place}.role` is {item.role!r}; it must be one of {', '.join(ROLES)}.", param=f"{place}.role"
        )
    return Message(ROLES[item.role], _text(item.content, f"{place}.content", skipped))


def _text(content: str | list[msgspec.Raw] | None, place: str, skipped: list[str]) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(_part(raw, f"{place}[{index}]", skipped) for index, raw in enumerate(content))


def _part(raw: msgspec.Raw, place: str, skipped: list[str]) -> str:
    match part(raw, Typed, place):
        case Typed("input_text" | "output_text" | "text"):
            return part(raw, TextPart, place).text
        case Typed("refusal"):
            return part(raw, RefusalPart, place).refusal
        case Typed("input_file"):
            return _file(part(raw, FilePart, place), place)
        case Typed("input_image" | "input_audio" | "input_video" as kind):
            raise InvalidRequest(f"`{place}` is an {kind}; this model reads text only.", param=place)
        case Typed(kind):
            skipped.append(f"part {kind or 'without type'}")
            return ""


def _file(file: FilePart, place: str) -> str:
    """The file's text. A file by id or URL can't be had here: nothing is ever fetched for a client."""
    if file.file_data is None:
        raise InvalidRequest(f"`{place}` must carry its text in `file_data`; no other source is read.", param=place)
    try:
        return _data(file.file_data).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise InvalidRequest(f"`{place}.file_data` is not UTF-8 text.", param=f"{place}.file_data") from error


def _data(url: str) -> bytes:
    """The bytes of a data URL (RFC 2397), or of the text itself."""
    if not url.startswith("data:"):
        return url.encode()
    kind, comma, data = url.partition(",")
    if not comma:
        raise binascii.Error("a data URL without its comma")
    raw = unquote_to_bytes(data)
    return base64.b64decode(raw, validate=True) if kind.endswith(";base64") else raw


def _merged(messages: Sequence[Message]) -> Iterator[Message]:
    """One system message at the beginning, however many the client sent: many templates allow no more."""
    leading = 0
    while leading < len(messages) and messages[leading].role == "system":
        leading += 1
    if leading:
        yield Message("system", "\n\n".join(message.content for message in messages[:leading]))
    yield from messages[leading:]


def _because(skipped: Sequence[str]) -> str:
    return f"; skipped: {', '.join(skipped)}" if skipped else ""
