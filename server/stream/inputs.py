"""Cues: what a stream is fed, one after the other. The same response and the same cues give the same bytes.

They are what is kept of a stream, so a tag stays what it is; a new field goes to the end, with a default.
"""

from typing import TypeAlias

from msgspec import Struct

from server.protocol.errors import ApiError
from server.protocol.events import ErrorPayload, Logprob, PromptProgress, Usage


class Created(Struct, frozen=True, array_like=True, tag="c"):
    """The first cue of all."""


class Queued(Struct, frozen=True, array_like=True, tag="q"):
    """The response waits for a slot."""


class InProgress(Struct, frozen=True, array_like=True, tag="r"):
    """The response is being made; again before its first item, so that nobody thinks the stream is dead."""

    progress: PromptProgress | None = None


class NotStored(Struct, frozen=True, array_like=True, tag="u"):
    """The response is not kept after all, nor does its conversation get anything of it."""


class TextAdded(Struct, frozen=True, array_like=True, tag="t"):
    text: str
    logprobs: tuple[Logprob, ...] = ()
    """Of the tokens whose text begins in it, for who asked."""


class ReasoningAdded(Struct, frozen=True, array_like=True, tag="n"):
    text: str


class ToolCallStarted(Struct, frozen=True, array_like=True, tag="b"):
    """A call begins."""

    name: str
    namespace: str | None = None
    custom: bool = False
    """Whether its arguments are one text, which stands in them as `input`."""
    streams: bool = False
    """Whether that text is told as it comes. What was kept without this was told at the end."""


class ArgumentsAdded(Struct, frozen=True, array_like=True, tag="a"):
    """More of the call's."""

    text: str


class ToolCallEnded(Struct, frozen=True, array_like=True, tag="d"):
    """The call is whole."""


class End(Struct, frozen=True, array_like=True, tag="e"):
    """It ends well, or early: with `incomplete` its reason, or at a stop string."""

    now: int
    """Seconds."""
    usage: Usage
    incomplete: str | None = None
    stop: str | None = None
    """Stop string that the answer ended at."""


class Cancelled(Struct, frozen=True, array_like=True, tag="x"):
    """Somebody wished that it ends here."""

    usage: Usage | None = None
    """None where the model had not begun."""


class Failure(Struct, frozen=True, array_like=True, tag="f"):
    """It ends badly."""

    error: ErrorPayload
    usage: Usage | None = None
    """None where the model had not begun, and in what earlier versions stored."""


StreamInput: TypeAlias = (
    Created
    | Queued
    | InProgress
    | NotStored
    | TextAdded
    | ReasoningAdded
    | ToolCallStarted
    | ArgumentsAdded
    | ToolCallEnded
    | End
    | Cancelled
    | Failure
)


def failure(error: ApiError, usage: Usage | None = None) -> Failure:
    return Failure(ErrorPayload(error.type, error.event_code, error.message, error.param), usage)
