"""Request -> messages -> engine Job. Pure."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from engine.chat_template import RESERVED, Message
from engine.job import Job, SamplingParams
from server.prompt import history, truncation
from server.prompt.item_reader import InputReader, PromptEntry, ReasoningText
from server.protocol import formats
from server.protocol.errors import InvalidRequest
from server.protocol.formats import Format
from server.protocol.request import Request
from server.tools import NO_TOOLS, Toolbox
from server.tools import toolbox as tools

LOGPROBS = "message.output_text.logprobs"
"""Of `include`."""


class PromptMessages(Struct, frozen=True):
    """What is left of the input for the model, and what was skipped (for the log)."""

    messages: tuple[Message, ...]
    skipped: tuple[str, ...]


def conversation(request: Request, past: Sequence[msgspec.Raw] = (), toolbox: Toolbox = NO_TOOLS) -> PromptMessages:
    """What is to be answered. `past`: the items of the turns before this one, oldest first.

    An empty input, or none, says that the past is all there is. Raises InvalidRequest where nothing is left of the
    input, or a part can't be read by a text model.
    """
    if request.input is None and not past:
        raise InvalidRequest("`input` is missing: send a text or a list of items.", param="input")
    reader = InputReader()
    before = list(reader.entries(past, _past_name(request), past=True))
    said = list(_said(request.input, reader))
    if request.input or not past:
        _something(said, reader.skipped, "input")
    return told([*before, *said], reader.skipped, request.instructions, note=format_note(request.format, toolbox))


def format_note(format_: Format, toolbox: Toolbox) -> str:
    """What the model is told of the format; nothing where its answer has to be a call."""
    return "" if toolbox.must_call else formats.told(format_, beside_calls=bool(toolbox.specs))


def told(
    entries: Sequence[PromptEntry],
    skipped: Sequence[str],
    instructions: str | None = None,
    name: str = "input",
    note: str = "",
) -> PromptMessages:
    """The one way from what was said to what the template is told; `name` is the field that it was said in.

    `format_note` is put behind the first instructions.

    Raises InvalidRequest where nothing was said.
    """
    _something(entries, skipped, name)
    leading = [Message("system", instructions)] if instructions else []
    return PromptMessages(tuple(_merged([*leading, *history.to_messages(entries)], note)), tuple(skipped))


def _past_name(request: Request) -> str:
    """The field that the past comes of."""
    return "previous_response_id" if request.conversation is None else "conversation"


def _said(input_: str | list[msgspec.Raw] | None, reader: InputReader) -> Iterator[PromptEntry]:
    if isinstance(input_, list):
        yield from reader.entries(input_, "input")
    elif input_:
        yield Message("user", input_)


def _something(entries: Sequence[PromptEntry], skipped: Sequence[str], name: str) -> None:
    if all(isinstance(entry, ReasoningText) for entry in entries):
        because = f"; skipped: {', '.join(skipped)}" if skipped else ""
        raise InvalidRequest(f"Nothing is left of `{name}` for the model to answer{because}.", param=name)


def sampling(request: Request, default: SamplingParams) -> SamplingParams:
    """`default` where the request says nothing."""
    wished = {field: getattr(request, field) for field in SamplingParams.__struct_fields__}
    if request.repeat_penalty is None:
        wished["repeat_penalty"] = request.repetition_penalty
    if wished["top_k"] == -1:
        wished["top_k"] = 0
    return msgspec.structs.replace(default, **{k: v for k, v in wished.items() if v is not None})


def effort(request: Request) -> str | None:
    """How much is to be thought, if anything was said of that."""
    return None if request.reasoning is None else request.reasoning.effort


def template_variables(request: Request) -> dict[str, Any]:
    """Raises InvalidRequest for one that the server sets itself."""
    variables = request.chat_template_kwargs or {}
    for name in variables:
        if name in RESERVED:
            raise InvalidRequest(
                f"`chat_template_kwargs.{name}` is set by the server: leave it out.", param="chat_template_kwargs"
            )
        if not name.isidentifier():
            raise InvalidRequest(
                f"`chat_template_kwargs` names {name[:100]!r}, which is no name of a variable.",
                param="chat_template_kwargs",
            )
    return variables


def toolbox(request: Request, nested: bool = False) -> Toolbox:
    """`nested`: see `tools`. Raises InvalidRequest."""
    return tools.toolbox(request.tools or (), request.tool_choice, request.parallel_tool_calls is not False, nested)


def top_logprobs(request: Request) -> int | None:
    """See Job. Either of the two fields asks for logprobs."""
    n = request.top_logprobs or 0
    return n if n or LOGPROBS in (request.include or ()) else None


def summary(request: Request) -> str | None:
    """Kind of summary of the reasoning that was asked for. It is echoed, as clients expect; none is made."""
    return None if request.reasoning is None else request.reasoning.summary


def without_effect(request: Request) -> list[str]:
    """Name what is asked for and skipped (for the log)."""
    found = [f"include {name}" for name in request.include or () if name != LOGPROBS]
    return [*found, "reasoning.summary"] if summary(request) not in (None, "none") else found


def check_bias(sampling: SamplingParams, n_vocab: int) -> None:
    """Raises InvalidRequest where a token is meant that the model has not."""
    if (token := max(sampling.logit_bias, default=0)) >= n_vocab:
        raise InvalidRequest(
            f"`logit_bias` names the token {token}; this model has those from 0 to {n_vocab - 1}.", param="logit_bias"
        )


def stops(request: Request) -> tuple[str, ...]:
    if request.stop is None:
        return ()
    return (request.stop,) if isinstance(request.stop, str) else tuple(request.stop)


def most(request: Request, n_ctx: int) -> int | None:
    """Tokens that the prompt may have before the oldest turns are dropped; None: none ever are."""
    if request.truncation != "auto":
        return None
    return n_ctx - truncation.room(request.max_output_tokens, n_ctx)


def job(request: Request, prompt: Sequence[int], sampling: SamplingParams, n_ctx: int, name: str = "input") -> Job:
    """Raises InvalidRequest where `prompt` (tokens) leaves no room for an answer; it came of the field `name`."""
    if not prompt:
        raise InvalidRequest("The model's chat template makes no tokens of this conversation. Send a text.", param=name)
    room = n_ctx - len(prompt)
    if room < 1:
        raise InvalidRequest(
            f"The input has {len(prompt)} tokens, and the model's context holds {n_ctx}. "
            "Shorten the input, or start the server with a larger --context.",
            param=name,
            code="context_length_exceeded",
        )
    granted = min(request.max_output_tokens or room, room)
    return Job(tuple(prompt), granted, sampling, top_logprobs=top_logprobs(request))


def affinity(request: Request, client: str) -> str:
    """The name that requests of one kin have in common, by the client's own word; empty where it says nothing.

    A conversation that goes on here has a better one: many applications send the same key with everything.
    """
    return f"{client} {request.prompt_cache_key}" if request.prompt_cache_key else ""


def _merged(messages: Sequence[Message], note: str) -> Iterator[Message]:
    """One system message at the beginning, however many the client sent: many templates allow no more."""
    leading = 0
    while leading < len(messages) and messages[leading].role == "system":
        leading += 1
    if texts := [*(message.content for message in messages[:leading]), *filter(None, [note])]:
        yield Message("system", "\n\n".join(texts))
    yield from messages[leading:]
