"""Read items of hosted tools in the history: shell, patches, MCP, web search and others. Pure.

OpenAI defines many kinds of them and changes their fields, so one reader covers all: it takes the name of the call, the
other fields as JSON arguments, and the text of the output (openai-python 3.57,
`types/responses/response_input_param.py`).
"""

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from engine.chat_template import Call

ENVELOPE = {"type", "id", "call_id", "status", "output", "outputs", "result", "results", "error", "name", "namespace"}
"""Fields of a call that are not arguments."""
RESULTS = ("output", "outputs", "result", "results", "tools", "error")
"""Fields that contain the output, in an output item or in a call with its output."""
TEXTS = ("text", "stdout", "stderr", "logs", "output", "error", "message", "url", "title", "name")
"""Fields of an output's parts that contain text for the model."""
MAX_DEPTH = 8
"""Levels of nested parts that are searched for text."""

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Output(Struct, frozen=True):
    """Text that a call returned."""

    call_id: str
    text: str


def id_text(call_id: str | int | None) -> str:
    """Return the id of a call as text: some clients send a number."""
    return "" if call_id is None else str(call_id)


def entries(raw: msgspec.Raw) -> Iterator[Call | Output]:
    """Yield the call, its output, or both; nothing for an item of another kind."""
    try:
        fields = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return
    kind = fields.get("type")
    if not isinstance(kind, str):
        return
    id_ = id_text(fields.get("call_id") or fields.get("id") or "")
    results = [fields[name] for name in RESULTS if fields.get(name) not in (None, [], "")]
    output = Output(id_, "\n".join(filter(None, map(_text, results))))
    if kind.endswith("_output") or kind == "mcp_list_tools":
        yield output
    elif kind.endswith("_call") and (results or _has_arguments(fields)):
        name = fields.get("name")
        yield Call(id_, name if isinstance(name, str) else kind.removesuffix("_call"), _arguments(fields))
        if results:
            yield output


def _has_arguments(fields: dict[str, Any]) -> bool:
    return isinstance(fields.get("arguments"), str) or bool(_other_fields(fields))


def _arguments(fields: dict[str, Any]) -> str:
    arguments = fields.get("arguments")
    return arguments if isinstance(arguments, str) else msgspec.json.encode(_other_fields(fields)).decode()


def _other_fields(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in ENVELOPE and value is not None}


def _text(value: object, depth: int = 0) -> str:
    """Return the texts of an output; its JSON if it has none."""
    if isinstance(value, str):
        return value
    if depth < MAX_DEPTH and isinstance(value, list):
        return "\n".join(filter(None, (_text(each, depth + 1) for each in value)))
    if depth < MAX_DEPTH and isinstance(value, dict):
        texts = [_text(value[name], depth + 1) for name in TEXTS if value.get(name) not in (None, "", [])]
        if texts:
            return "\n".join(filter(None, texts))
    return msgspec.json.encode(value).decode()
