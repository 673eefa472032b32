"""The Responses API. https://platform.openai.com/docs/api-reference/responses-streaming"""

from typing import Any

from record import Record

from apis.question import Question

DELTAS = {
    "response.output_text.delta",
    "response.reasoning_text.delta",
    "response.refusal.delta",
    "response.function_call_arguments.delta",
    "response.custom_tool_call_input.delta",
}
"""Events that carry tokens. A reasoning summary repeats others."""
_TERMINAL = {"response.completed", "response.incomplete", "response.failed"}


def body(question: Question) -> dict[str, Any]:
    """Return the fields of a request that clients send."""
    fields: dict[str, Any] = {"input": question.input_, "stream": True}
    if question.tokens is not None:
        fields["max_output_tokens"] = question.tokens
    if question.instructions is not None:
        fields["instructions"] = question.instructions
    if question.format_ is not None:
        fields["text"] = {"format": question.format_}
    return fields


def apply_event(record: Record, time: float, event: dict[str, Any]) -> None:
    """Add one event to the record."""
    kind = event.get("type")
    if kind in DELTAS and event.get("delta"):
        record.deltas.append(time)
        if kind == "response.output_text.delta":
            record.text += event["delta"]
    elif kind in _TERMINAL:
        record.end, record.status = time, kind.removeprefix("response.")
        _apply_usage(record, (event.get("response") or {}).get("usage") or {})


def _apply_usage(record: Record, usage: dict[str, Any]) -> None:
    record.output_tokens, record.input_tokens = usage.get("output_tokens") or 0, usage.get("input_tokens") or 0
    record.cached_tokens = (usage.get("input_tokens_details") or {}).get("cached_tokens") or 0
