"""Body of the request to an upstream: chat completions, streamed. Pure.

Fields that the client has not set are left out, so that the upstream's own defaults apply.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw

from engine.chat_template import Message
from engine.constraint import GrammarError
from server.prompt import options
from server.protocol.formats import JsonFormat, PlainFormat
from server.protocol.request import Request
from server.served_model import JobParams
from server.tools import Toolbox, ToolSpec, arguments_schema
from server.upstream.transport import MIN_TOP_P

SAMPLING = ("temperature", "top_p", "seed", "presence_penalty", "frequency_penalty", "logit_bias", "stop")
"""Fields of OpenAI's API."""
EXTENSIONS = ("top_k", "min_p", "repeat_last_n")
"""Fields of llama.cpp, vLLM and SGLang."""
NO_THINKING = ("none", "minimal")
"""Reasoning efforts that turn reasoning off in templates that can."""


def chat_fields(model: str, messages: Sequence[Message], params: JobParams, max_tokens: int | None) -> dict[str, Any]:
    """Return the body. `model`: name at the upstream. `max_tokens`: None for what the upstream allows."""
    request, toolbox = params.request, params.toolbox
    body: dict[str, Any] = {
        "model": model,
        "messages": [chat_message(message) for message in messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        **({} if max_tokens is None else {"max_tokens": max_tokens}),
        **_tools(toolbox),
        **_format(request, toolbox),
        **_sampling(request),
        **_reasoning(params),
    }
    if (top := options.top_logprobs(request)) is not None:
        body |= {"logprobs": True, "top_logprobs": top}
    return body


def chat_message(message: Message) -> dict[str, Any]:
    """Return a message in the form of chat completions."""
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.call_id, "content": message.content}
    if message.role != "assistant":
        return {"role": message.role, "content": message.content}
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in message.calls
    ]
    return {
        "role": "assistant",
        "content": message.content or (None if calls else ""),
        **({"reasoning_content": message.reasoning} if message.reasoning else {}),
        **({"tool_calls": calls} if calls else {}),
    }


def _tools(toolbox: Toolbox) -> dict[str, Any]:
    """Return the functions that the model may call, and the choice among them."""
    if not toolbox.specs:
        return {}
    fields: dict[str, Any] = {"tools": [_tool(spec) for spec in toolbox.specs]}
    if toolbox.must_call:  # of one function too: llama.cpp's server reads a choice that names it as "auto"
        fields["tool_choice"] = "required"
    if not toolbox.parallel:
        fields["parallel_tool_calls"] = False
    return fields


def _tool(spec: ToolSpec) -> dict[str, Any]:
    """Return a function. A strict one has the schema that is verified, with the regex of a custom tool's input."""
    function: dict[str, Any] = {"name": spec.name, "description": spec.tool.description}
    if spec.strict:
        function |= {"parameters": _strict_schema(spec), "strict": True}
    else:
        function["parameters"] = Raw(spec.tool.parameters.encode())
    return {"type": "function", "function": function}


def _strict_schema(spec: ToolSpec) -> Raw:
    """Return the schema as JSON at once, so that one schema at a time is an object."""
    try:
        return Raw(msgspec.json.encode(arguments_schema(spec)))
    except GrammarError:  # a summary: `constraints` refuses the schema for an answer
        return Raw(spec.tool.parameters.encode())


def _format(request: Request, toolbox: Toolbox) -> dict[str, Any]:
    format_ = request.format
    if isinstance(format_, PlainFormat) or toolbox.must_call:
        return {}
    if isinstance(format_, JsonFormat):
        return {"response_format": {"type": "json_object"}}
    schema = {"name": format_.name, "schema": format_.schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _sampling(request: Request) -> dict[str, Any]:
    fields = {name: getattr(request, name) for name in (*SAMPLING, *EXTENSIONS)}
    if fields["top_p"] == 0:
        fields["top_p"] = MIN_TOP_P
    penalty = request.repetition_penalty if request.repeat_penalty is None else request.repeat_penalty
    fields |= {"repeat_penalty": penalty, "repetition_penalty": penalty}  # the names of llama.cpp and of vLLM
    return {name: value for name, value in fields.items() if value is not None}


def _reasoning(params: JobParams) -> dict[str, Any]:
    variables = dict(options.template_variables(params.request))
    if params.effort in NO_THINKING:
        variables.setdefault("enable_thinking", False)
    fields: dict[str, Any] = {"chat_template_kwargs": variables} if variables else {}
    return fields | ({"reasoning_effort": params.effort} if params.effort else {})
