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
    _something(said, reader.skipped, "input")
    return told([*before, *said], reader.skipped, request.instructions)


def all_said(request: Request, past: Sequence[msgspec.Raw] = (), stored: Mapping[str, bytes] = NOTHING) -> Conversation:
    """As `conversation`, but what there is of it may be in the past alone: for what answers nothing."""
    reader = Reader(stored)
    before = list(reader.entries(past, "previous_response_id"))
    return told([*before, *_said(request.input, reader)], reader.skipped, request.instructions)


def told(
    entries: Sequence[Entry], skipped: Sequence[str], instructions: str | None = None, name: str = "input"
) -> Conversation:
    """The one way from what was said to what the template is told; `name` is the field that it was said in.

    Raises InvalidRequest where nothing was said.
    """
    _something(entries, skipped, name)
    leading = [Message("system", instructions)] if instructions else []
    return Conversation(tuple(_merged([*leading, *history.told(entries)])), tuple(skipped))


def _said(input_: str | list[msgspec.Raw] | None, reader: Reader) -> Iterator[Entry]:
    if isinstance(input_, list):
        yield from reader.entries(input_, "input")
    elif input_:
        yield Message("user", input_)


def _something(entries: Sequence[Entry], skipped: Sequence[str], name: str) -> None:
    if all(isinstance(entry, Thought) for entry in entries):
        because = f"; skipped: {', '.join(skipped)}" if skipped else ""
        raise InvalidRequest(f"Nothing is left of `{name}` for the model to answer{because}.", param=name)


def references(request: Request) -> list[str]:
    """The ids of the items that the input refers to. Raises InvalidRequest."""
    return reading.references(request.input if isinstance(request.input, list) else ())


def sampling(request: Request, default: Sampling) -> Sampling:
    """`default` where the request says nothing."""
    wished = {field: getattr(request, field) for field in Sampling.__struct_fields__}
    return msgspec.structs.replace(default, **{k: v for k, v in wished.items() if v is not None})


def effort(request: Request) -> str | None:
    """How much is to be thought, if anything was said of that."""
    return None if request.reasoning is None else request.reasoning.effort


def stops(request: Request) -> tuple[str, ...]:
    if request.stop is None:
        return ()
    return (request.stop,) if isinstance(request.stop, str) else tuple(request.stop)


def job(request: Request, prompt: Sequence[int], sampling: Sampling, n_ctx: int, name: str = "input") -> Job:
    """Raises InvalidRequest where `prompt` (tokens) leaves no room for an answer; it came of the field `name`."""
    room = n_ctx - len(prompt)
    if room < 1:
        raise InvalidRequest(
            f"The input has {len(prompt)} tokens, and the model's context holds {n_ctx}. "
            "Shorten the input, or start the server with a larger --context.",
            param=name,
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
