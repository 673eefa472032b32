"""Convert a request into messages, and its prompt into an engine job. Pure."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine.chat_template import RESERVED, Message
from engine.job import Job, SamplingParams
from server.prompt import history, truncation
from server.prompt.compacted_history import without_compacted
from server.prompt.compaction import is_triggered
from server.prompt.item_reader import InputReader, ItemPlace, PromptEntry, ReasoningEntry
from server.prompt.item_texts import ItemText, item_texts
from server.protocol import formats, prompt_cache
from server.protocol.errors import InvalidRequest
from server.protocol.formats import Format
from server.protocol.request import ReasoningOptions, Request, TypeAndRole, part
from server.tools import NO_TOOLS, Toolbox, additional_tools
from server.tools import toolbox as tools

LOGPROBS = "message.output_text.logprobs"
"""Value of `include` that requests logprobs."""
SEALED_REASONING = "reasoning.encrypted_content"
"""Value of `include` that requests the sealed text of reasoning items."""
SUMMARIES = ("concise", "detailed")
"""Kinds of reasoning summaries, besides `auto`."""
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


def conversation(request: Request, past: Sequence[msgspec.Raw] = (), toolbox: Toolbox = NO_TOOLS) -> PromptMessages:
    """Return the conversation that the model answers. `past`: items of earlier turns, oldest first.

    The input may be empty or missing if there is a past. Raises InvalidRequest if the input has nothing that the model
    can read, or a part that a text model cannot read.
    """
    if _is_beginning(request, past, toolbox):
        return _beginning(request, toolbox)
    if request.input is None and not past:
        raise InvalidRequest("`input` is missing: send a text or a list of items.", param="input")
    reader = InputReader(toolbox.found)
    earlier = list(reader.entries(past, past_field(request), past=True))
    new = list(_input_entries(request.input, reader))
    if request.input or not past:
        _require_content([*earlier, *new] if is_triggered(request) else new, reader.skipped, "input")
    entries, reader.places = without_compacted([*earlier, *new], reader.places)
    if request.reasoning is not None and request.reasoning.context == "current_turn":
        entries, reader.places = _without_earlier_reasoning(entries, reader.places)
    note = format_note(request.format, toolbox)
    return prompt_messages(entries, reader, request.instructions, note=note)


def _without_earlier_reasoning(
    entries: Sequence[PromptEntry], places: Sequence[ItemPlace]
) -> tuple[list[PromptEntry], list[ItemPlace]]:
    """Return the entries and their places without the reasoning before the user's last message."""
    users = [index for index, entry in enumerate(entries) if isinstance(entry, Message) and entry.role == "user"]
    last = users[-1] if users else 0
    kept = [i for i, entry in enumerate(entries) if i > last or not isinstance(entry, ReasoningEntry)]
    return [entries[i] for i in kept], [places[i] for i in kept]


def _is_beginning(request: Request, past: Sequence[msgspec.Raw], toolbox: Toolbox) -> bool:
    """True if the request prewarms instructions or tools, and has no message."""
    return not (request.input or past) and request.prewarms and bool(request.instructions or toolbox.specs)


def _beginning(request: Request, toolbox: Toolbox) -> PromptMessages:
    """Return the messages before the user's first one, to prewarm them."""
    leading = [Message("system", request.instructions)] if request.instructions else []
    messages = history.merge_system_messages(leading, format_note(request.format, toolbox))
    items = (ItemText(INSTRUCTIONS, request.instructions),) if request.instructions else ()
    return PromptMessages(tuple(messages), (), open_ended=True, items=items)


def format_note(format_: Format, toolbox: Toolbox) -> str:
    """Return the sentence that describes the format to the model; empty if its answer must be a call."""
    return "" if toolbox.must_call else formats.prompt_text(format_, with_calls=bool(toolbox.specs))


def prompt_messages(
    entries: Sequence[PromptEntry],
    reader: InputReader,
    instructions: str | None = None,
    name: str = "input",
    note: str = "",
) -> PromptMessages:
    """Return the messages of entries, which `reader` has read, with `note` after the instructions.

    `name`: field of the request that the entries come from. Raises InvalidRequest if there is nothing to answer.
    """
    _require_content(entries, reader.skipped, name)
    leading = [Message("system", instructions)] if instructions else []
    messages = history.merge_system_messages([*leading, *history.to_messages(entries)], note)
    first = [ItemText(INSTRUCTIONS, instructions)] if instructions else []
    items = (*first, *item_texts(entries, reader.places, reader.breakpoints))
    return PromptMessages(tuple(messages), tuple(reader.skipped), items=items)


def past_field(request: Request) -> str:
    """Return the field that names the past."""
    return "previous_response_id" if request.conversation is None else "conversation"


def _input_entries(input_: str | list[msgspec.Raw] | None, reader: InputReader) -> Iterator[PromptEntry]:
    if isinstance(input_, list):
        yield from reader.entries(input_, "input")
    elif input_:
        reader.places.append(ItemPlace("input", None, "message"))
        yield Message("user", input_)


def _require_content(entries: Sequence[PromptEntry], skipped: Sequence[str], name: str) -> None:
    """Raise InvalidRequest if no entry is more than reasoning."""
    if all(isinstance(entry, ReasoningEntry) for entry in entries):
        because = f"; skipped: {', '.join(dict.fromkeys(skipped))}" if skipped else ""
        advice = " Send the MCP tool of the approval in `tools` again." if APPROVAL in skipped else ""
        raise InvalidRequest(f"`{name}` has no text for the model to answer{because}.{advice}", param=name)


def sampling(request: Request, default: SamplingParams) -> SamplingParams:
    """Return the sampling settings of the request, completed by `default`."""
    settings = {field: getattr(request, field) for field in SamplingParams.__struct_fields__}
    if request.repeat_penalty is None:
        settings["repeat_penalty"] = request.repetition_penalty
    if settings["top_k"] == -1:
        settings["top_k"] = 0
    return msgspec.structs.replace(default, **{k: v for k, v in settings.items() if v is not None})


def effort(request: Request) -> str | None:
    """Return the reasoning effort; None if the request has none."""
    return None if request.reasoning is None else request.reasoning.effort


def template_variables(request: Request) -> dict[str, Any]:
    """Return the template variables of the request. Raises InvalidRequest for one that the server sets itself."""
    variables = request.chat_template_kwargs or {}
    for name in variables:
        if name in RESERVED:
            raise InvalidRequest(
                f"`chat_template_kwargs.{name}` is set by the server: leave it out.", param="chat_template_kwargs"
            )
        if not name.isidentifier():
            raise InvalidRequest(
                f"`chat_template_kwargs` has the key {name[:100]!r}; a key must be an identifier.",
                param="chat_template_kwargs",
            )
    return variables


def toolbox(request: Request, past: Sequence[msgspec.Raw] = (), nested: bool = False) -> Toolbox:
    """Return the tools of the request, of its items and of earlier ones. `nested`: see `server.tools.toolbox`.

    Raises InvalidRequest.
    """
    items = request.input if isinstance(request.input, list) else ()
    additional = [*additional_tools(past, past_field(request)), *additional_tools(items, "input")]
    if any(each.found for each in additional) and _may_lose_outputs(request, [*past, *items]):
        additional = [replace(each, found=False) for each in additional]
    parallel = request.parallel_tool_calls is not False
    return tools.toolbox(request.tools or (), request.tool_choice, parallel, nested, additional)


def _may_lose_outputs(request: Request, items: Sequence[msgspec.Raw]) -> bool:
    """True if outputs may be left out of the prompt, so that it cannot have tools in them."""
    shortened = request.truncation == "auto" or bool(request.context_management)
    return shortened or any(part(item, TypeAndRole, "input").type == "compaction" for item in items)


def top_logprobs(request: Request) -> int | None:
    """Return the number of top logprobs; None if neither `top_logprobs` nor `include` requests logprobs."""
    n = request.top_logprobs or 0
    return n if n or LOGPROBS in (request.include or ()) else None


def summary(request: Request) -> str | None:
    """Return the kind of the reasoning summary; None for none. `auto` gives a concise one."""
    kind = None if request.reasoning is None else request.reasoning.chosen_summary
    return "concise" if kind == "auto" else kind if kind in SUMMARIES else None


def includes_sealed_reasoning(request: Request) -> bool:
    """Return whether the request asks for `encrypted_content` in reasoning items."""
    return SEALED_REASONING in (request.include or ())


def unused_options(request: Request) -> list[str]:
    """Return the names of options that have no effect here, for the log."""
    found = [f"include {name}" for name in request.include or () if name not in (LOGPROBS, SEALED_REASONING)]
    found += [
        f"context_management {each.type}" for each in request.context_management or () if each.type != "compaction"
    ]
    found += prompt_cache.unused(request.prompt_cache_options)
    return found if request.reasoning is None else [*found, *_unused_reasoning(request.reasoning)]


def _unused_reasoning(reasoning: ReasoningOptions) -> Iterator[str]:
    if reasoning.mode not in (None, "standard"):
        yield "reasoning.mode"
    if reasoning.chosen_summary not in (None, "none", "auto", *SUMMARIES):
        yield "reasoning.summary"


def check_bias(sampling: SamplingParams, n_vocab: int) -> None:
    """Raise InvalidRequest if a bias is for a token that the vocabulary does not have."""
    if (token := max(sampling.logit_bias, default=0)) >= n_vocab:
        raise InvalidRequest(
            f"`logit_bias` names token {token}; this model's tokens are 0 to {n_vocab - 1}.", param="logit_bias"
        )


def stops(request: Request) -> tuple[str, ...]:
    if request.stop is None:
        return ()
    return (request.stop,) if isinstance(request.stop, str) else tuple(request.stop)


def max_prompt_tokens(request: Request, n_ctx: int, limit: int = 0) -> int | None:
    """Return the tokens that the prompt may have before the oldest turns are dropped; None if none are dropped.

    `limit`: the server's limit; 0 without one.
    """
    if request.truncation != "auto":
        return None
    most = n_ctx - truncation.reserved_tokens(request.max_output_tokens, n_ctx)
    return min(most, limit or most)


def job(
    request: Request, prompt: Sequence[int], sampling: SamplingParams, n_ctx: int, limit: int = 0, name: str = "input"
) -> Job:
    """Return the job that continues `prompt` (tokens) by at most `limit` tokens; 0 allows what the context leaves.

    `name`: field of the request that the prompt comes from.

    Raises InvalidRequest if the prompt leaves no space for an answer.
    """
    if not prompt:
        message = "The model's chat template renders this conversation as an empty prompt: send a text."
        raise InvalidRequest(message, param=name)
    left = n_ctx - len(prompt)
    if left < 1:
        raise _too_long(str(len(prompt)), n_ctx, name)
    max_tokens = 0 if request.prewarms else min(request.max_output_tokens or left, limit or left, left)
    return Job(tuple(prompt), max_tokens, sampling, top_logprobs=top_logprobs(request))


def refuse_more(count: int, n_ctx: int, name: str, limit: int = 0) -> None:
    """Raise InvalidRequest if the context has less than `count` tokens, which are only the first ones of the prompt.

    `limit`: the server's limit; 0 without one.
    """
    if limit and limit < min(count, n_ctx):
        raise InvalidRequest(
            f"The input has more than {limit} tokens, which this server accepts. "
            "Shorten the input, or raise the limit with --max-prompt-tokens.",
            param=name,
            code="context_length_exceeded",
        )
    if count > n_ctx:
        raise _too_long(f"more than {n_ctx}", n_ctx, name)


def _too_long(count: str, n_ctx: int, name: str) -> InvalidRequest:
    return InvalidRequest(
        f"The input has {count} tokens; the model's context has {n_ctx}. "
        "Shorten the input, or start the server with a larger --context.",
        param=name,
        code="context_length_exceeded",
    )


def affinity(request: Request, client: str) -> str:
    """Return the affinity group that the client names by `prompt_cache_key`, or for the background by
    `background_options.continuation_id`; empty if it names none.

    The id of a stored conversation is more precise: many applications send one key with every request.
    """
    options = request.background_options
    key = request.prompt_cache_key or (options.continuation_id if options is not None else None)
    return f"{client} {key}" if key else ""
