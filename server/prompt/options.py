"""Options of a request in the words of the engine and of the prompt: sampling, tools, reasoning, stops. Pure."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from engine.chat_template import RESERVED
from engine.job import SamplingParams
from server.protocol import prompt_cache
from server.protocol.decoding import part
from server.protocol.errors import InvalidRequest
from server.protocol.request import ReasoningOptions, Request, TypeAndRole
from server.tools import Toolbox, additional_tools
from server.tools import toolbox as tools

LOGPROBS = "message.output_text.logprobs"
"""Value of `include` that requests logprobs."""
SEALED_REASONING = "reasoning.encrypted_content"
"""Value of `include` that requests the sealed text of reasoning items."""
SUMMARIES = ("concise", "detailed")
"""Kinds of reasoning summaries, besides `auto`."""


def sampling(request: Request, default: SamplingParams) -> SamplingParams:
    """Return the sampling settings of the request, completed by `default`."""
    settings = {field: getattr(request, field) for field in SamplingParams.__struct_fields__}
    if request.repeat_penalty is None:
        settings["repeat_penalty"] = request.repetition_penalty
    if settings["top_k"] == -1:
        settings["top_k"] = 0
    return replace(default, **{k: v for k, v in settings.items() if v is not None})


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


def past_field(request: Request) -> str:
    """Return the field that names the past."""
    return "previous_response_id" if request.conversation is None else "conversation"


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


def stops(request: Request) -> tuple[str, ...]:
    if request.stop is None:
        return ()
    return (request.stop,) if isinstance(request.stop, str) else tuple(request.stop)


def continuation_id(request: Request) -> str | None:
    """Return the name of related requests in the background; None if the request has none."""
    options = request.background_options
    return options.continuation_id or None if options is not None else None


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
