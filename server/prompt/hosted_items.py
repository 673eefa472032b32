"""Items of tools that somebody else executes: shell, patches, MCP, web search and so on. They are history. Pure.

Their kinds and fields are many and change, so they are read alike: what was called, with which JSON, and the text that
came of it (openai-python 3.57, `types/responses/response_input_param.py`).
"""

from collections.abc import Iterator

import msgspec
from msgspec import Struct

from engine.chat_template import Call

ENVELOPE = {"type", "id", "call_id", "status", "output", "outputs", "result", "results", "error", "name", "namespace"}
"""Fields that are no arguments of a call."""
RESULTS = ("output", "outputs", "result", "results", "tools", "error")
"""Fields that have the text of an output, or of a call that has its output with it."""
TEXTS = ("text", "stdout", "stderr", "logs", "output", "error", "message", "url", "title", "name")
"""Fields of an output's parts that are text for the model."""
MAX_DEPTH = 8

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Output(Struct, frozen=True):
    """Text that a call has given."""

    call_id: str
    text: str


def id_text(call_id: str | int | None) -> str:
    """Some clients send the id of a call as a number."""
    return "" if call_id is None else str(call_id)


def entries(raw: msgspec.Raw) -> Iterator[Call | Output]:
    """The call, its output, or both; nothing for an item of another kind."""
    try:
        fields = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return
    kind = fields.get("type")
    if not isinstance(kind, str):
        return
    id_ = id_text(fields.get("call_id") or fields.get("id") or "")
    results = [fields[name] for name in RESULTS if fields.get(name) not in (None, [], "")]
    if kind.endswith("_output") or kind == "mcp_list_tools":
        yield Output(id_, "\n".join(filter(None, map(_text, results))))
    elif kind.endswith("_call"):
        name = fields.get("name")
        arguments = fields.get("arguments")
        if not isinstance(arguments, str):
            rest = {field: value for field, value in fields.items() if field not in ENVELOPE and value is not None}
            if not (rest or results):
                return  # nothing is known of it
            arguments = msgspec.json.encode(rest).decode()
        yield Call(id_, name if isinstance(name, str) else kind.removesuffix("_call"), arguments)
        if results:
            yield Output(id_, "\n".join(filter(None, map(_text, results))))


def _text(value: object, depth: int = 0) -> str:
    """The texts of an output, whatever it is made of; JSON where it has none."""
    if isinstance(value, str):
        return value
    if depth < MAX_DEPTH and isinstance(value, list):
        return "\n".join(filter(None, (_text(each, depth + 1) for each in value)))
    if depth < MAX_DEPTH and isinstance(value, dict):
        texts = [_text(value[name], depth + 1) for name in TEXTS if value.get(name) not in (None, "", [])]
        if texts:
            return "\n".join(filter(None, texts))
    return msgspec.json.encode(value).decode()
