"""Read items of built-in tools in the history: shell, patches, MCP, web search and others. Pure.

OpenAI defines many kinds of them and changes their fields, so one reader covers all: it takes the name of the call, the
other fields as JSON arguments, and the text of the output (openai-python 3.57,
`types/responses/response_input_param.py`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from engine.chat_template import Call
from server.prompt.items.entries import Output, id_text

ENVELOPE = {"type", "id", "call_id", "status", "output", "outputs", "result", "results", "error", "name", "namespace"}
"""Fields of a call that are not arguments."""
ARGUMENTS = {
    "apply_patch_call": "operation",
    "local_shell_call": "action",
    "shell_call": "action",
    "tool_search_call": "arguments",
}
"""Type of a call -> field that is the object of its arguments, as the model writes them (`server.tools`)."""
RESULTS = ("output", "outputs", "result", "results", "tools", "error")
"""Fields that contain the output, in an output item or in a call with its output."""
TEXTS = ("text", "stdout", "stderr", "logs", "output", "error", "message", "url", "title", "name")
"""Fields of an output's parts that contain text for the model."""
MAX_DEPTH = 8
"""Levels of nested parts that are searched for text."""

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def entries(raw: msgspec.Raw, found: Mapping[str, str] | None = None) -> Iterator[Call | Output]:
    """Yield the call, its output, or both; nothing for an item of another kind.

    `found`: descriptions of tools that a search has found, by their names.
    """
    try:
        fields = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return
    kind = fields.get("type")
    if not isinstance(kind, str):
        return
    if kind.endswith("_call"):
        yield from _call(kind, fields)
    elif (output := _output(kind, fields, found or {})) is not None:
        yield output


def _call(kind: str, fields: dict[str, Any]) -> Iterator[Call | Output]:
    """Yield a call and its output; nothing for a call without arguments and output."""
    results = _filled(fields, RESULTS)
    if results or _has_arguments(kind, fields):
        yield Call(_id(fields), _call_name(kind, fields), _arguments(kind, fields))
    if results:
        yield Output(_id(fields), _joined(map(_text, results)))


def _output(kind: str, fields: dict[str, Any], found: Mapping[str, str]) -> Output | None:
    """Return the output; None for an item of another kind."""
    if kind == "tool_search_output":
        return Output(_id(fields), _tools(fields.get("tools"), found), "tool_search")
    text = _joined(map(_text, _filled(fields, RESULTS)))
    if kind.endswith("_call_output"):
        return Output(_id(fields), _with_status(fields, text), kind.removesuffix("_call_output"))
    return Output(_id(fields), text) if kind.endswith("_output") or kind == "mcp_list_tools" else None


def _id(fields: dict[str, Any]) -> str:
    return id_text(fields.get("call_id") or fields.get("id") or "")


def _filled(fields: dict[str, Any], names: Sequence[str]) -> list[object]:
    """Return the values of those fields that are not empty."""
    return [fields[name] for name in names if fields.get(name) not in (None, [], "")]


def _joined(texts: Iterable[str]) -> str:
    return "\n".join(filter(None, texts))


def _call_name(kind: str, fields: dict[str, Any]) -> str:
    """Return the name by which the model calls the function; that of an MCP tool contains its server's label."""
    name, label = fields.get("name"), fields.get("server_label")
    if not isinstance(name, str):
        return kind.removesuffix("_call")
    return f"{label}__{name}" if kind == "mcp_call" and isinstance(label, str) else name


def _has_arguments(kind: str, fields: dict[str, Any]) -> bool:
    return kind in ARGUMENTS or isinstance(fields.get("arguments"), str) or bool(_other_fields(fields))


def _arguments(kind: str, fields: dict[str, Any]) -> str:
    arguments = fields.get(ARGUMENTS.get(kind, "arguments"))
    if isinstance(arguments, str):
        return arguments
    if kind not in ARGUMENTS or not isinstance(arguments, dict):
        arguments = _other_fields(fields)
    elif kind == "local_shell_call":  # its action has one type only
        arguments = {name: value for name, value in arguments.items() if name != "type" and value != {}}
    return msgspec.json.encode({name: value for name, value in arguments.items() if value is not None}).decode()


def _other_fields(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in ENVELOPE and value is not None}


def _tools(tools: object, found: Mapping[str, str]) -> str:
    """Return the tools that a search has found, one a line: those in `found` by their descriptions, others by name."""
    names: list[str] = []
    for tool in filter(lambda each: isinstance(each, dict), tools if isinstance(tools, list) else []):
        inner = tool.get("tools")
        names += [f"{tool.get('name')}__{each.get('name')}" for each in inner or () if isinstance(each, dict)]
        names += [] if inner else [str(tool.get("name") or tool.get("type"))]
    return "\n".join(found.get(name, name) for name in names) or "No tool was found."


def _with_status(fields: dict[str, Any], text: str) -> str:
    """Return the text of an output, with the status of a patch that failed or has no text."""
    status = fields.get("status")
    if not isinstance(status, str) or (text and status != "failed"):
        return text
    return f"{status}: {text}" if text else status


def _outcome(outcome: object) -> str:
    """Return the outcome of a shell command in words; empty if it succeeded."""
    match outcome:
        case {"type": "timeout"}:
            return "The command timed out."
        case {"exit_code": int(code)} if code:
            return f"Exit code {code}."
    return ""


def _text(value: object, depth: int = 0) -> str:
    """Return the texts of an output; its JSON if it has none."""
    if isinstance(value, str):
        return value
    if depth < MAX_DEPTH and isinstance(value, list):
        return _joined(_text(each, depth + 1) for each in value)
    if depth < MAX_DEPTH and isinstance(value, dict):
        texts = [_text(each, depth + 1) for each in _filled(value, TEXTS)]
        texts.append(_outcome(value.get("outcome")))
        if any(texts) or "outcome" in value:
            return _joined(texts)
    return msgspec.json.encode(value).decode()
