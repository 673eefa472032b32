"""Request -> messages -> engine Job. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import msgspec
from msgspec import Struct

from engine import Job, Message, Sampling
from server import history, reading
from server.errors import InvalidRequest
from server.reading import Entry, Reader, Thought
from server.schema import Request

NOTHING: Mapping[str, bytes] = MappingProxyType({})


class Conversation(Struct, frozen=True):
    """What is left of the input for the model, and what was skipped (for the log)."""

    messages: tuple[Message, ...]
    skipped: tuple[str, ...]


def conversation(
    request: Request, past: Sequence[msgspec.Raw] = (), stored: Mapping[str, bytes] = NOTHING
) -> Conversation:
    """What is to be answered. `past`: the items of the turns before this one, oldest first; `stored`: those that
    `references` has named, by their ids.

    Raises InvalidRequest where nothing is left of the input, a part can't be read by a text model, or what is
    referred to is not there.
    """
    if request.input is None:
        raise InvalidRequest("`input` is missing: send a text or a list of items.", param="input")
    reader = Reader(stored)
    before = list(reader.entries(past, "previous_response_id"))
    said = list(_said(request.input, reader))
    if all(isinstance(entry, Thought) for entry in said):
        raise _nothing(reader.skipped)
    return _told(request, [*before, *said], reader)


def all_said(request: Request, past: Sequence[msgspec.Raw] = (), stored: Mapping[str, bytes] = NOTHING) -> Conversation:
    """As `conversation`, but what there is of it may be in the past alone: for what answers nothing."""
    reader = Reader(stored)
    before = list(reader.entries(past, "previous_response_id"))
    entries = [*before, *_said(request.input, reader)]
    if all(isinstance(entry, Thought) for entry in entries):
        raise _nothing(reader.skipped)
    return _told(request, entries, reader)


def _said(input_: str | list[msgspec.Raw] | None, reader: Reader) -> Iterator[Entry]:
    if isinstance(input_, list):
        yield from reader.entries(input_, "input")
    elif input_:
        yield Message("user", input_)


def _told(request: Request, entries: Sequence[Entry], reader: Reader) -> Conversation:
    instructions = [Message("system", request.instructions)] if request.instructions else []
    return Conversation(tuple(_merged([*instructions, *history.told(entries)])), tuple(reader.skipped))


def _nothing(skipped: Sequence[str]) -> InvalidRequest:
    because = f"; skipped: {', '.join(skipped)}" if skipped else ""
    return InvalidRequest(f"Nothing is left of `input` for the model to answer{because}.", param="input")


def references(request: Request) -> list[str]:
    """The ids of the items that the input refers to. Raises InvalidRequest."""
    return reading.references(request.input if isinstance(request.input, list) else ())


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


def _merged(messages: Sequence[Message]) -> Iterator[Message]:
    """One system message at the beginning, however many the client sent: many templates allow no more."""
    leading = 0
    while leading < len(messages) and messages[leading].role == "system":
        leading += 1
    if leading:
        yield Message("system", "\n\n".join(message.content for message in messages[:leading]))
    yield from messages[leading:]
