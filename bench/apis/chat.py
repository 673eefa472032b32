"""Chat Completions, and the chunks that legacy completions share with it.

https://platform.openai.com/docs/api-reference/chat-streaming
"""

from typing import Any

from record import Record

from apis.question import Question


def body(question: Question) -> dict[str, Any]:
    """Return the fields of a request. `stream_options` asks for the usage, which clients do not do by default."""
    fields: dict[str, Any] = {
        "messages": [*_messages(question)],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if question.tokens is not None:
        fields["max_tokens"] = question.tokens  # not `max_completion_tokens`, which older servers ignore
    if question.format_ is not None:
        schema = {key: value for key, value in question.format_.items() if key != "type"}
        fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    return fields


def _messages(question: Question) -> list[dict[str, str]]:
    items = question.input_
    messages = [{"role": "user", "content": items}] if isinstance(items, str) else [_message(item) for item in items]
    if question.instructions is not None:
        messages.insert(0, {"role": "system", "content": question.instructions})
    return messages


def _message(item: dict[str, Any]) -> dict[str, str]:
    content = item["content"]
    text = content if isinstance(content, str) else "".join(part["text"] for part in content)
    return {"role": item["role"], "content": text}


def apply_chunk(record: Record, time: float, chunk: dict[str, Any]) -> None:
    """Add one chunk to the record. The terminal one is the chunk with a `finish_reason`; the usage follows it."""
    if usage := chunk.get("usage"):
        _apply_usage(record, usage)
    for choice in chunk["choices"][:1]:
        delta = choice.get("delta") or {}
        text = delta.get("content") or choice.get("text") or ""
        if text or any(map(delta.get, _OTHER_TOKENS)):
            record.deltas.append(time)
            record.text += text
        if reason := choice.get("finish_reason"):
            record.end, record.status = time, "incomplete" if reason == "length" else "completed"


_OTHER_TOKENS = ("reasoning_content", "reasoning", "tool_calls", "refusal")
"""Fields of a delta that carry tokens, besides the text."""


def _apply_usage(record: Record, usage: dict[str, Any]) -> None:
    record.output_tokens, record.input_tokens = usage.get("completion_tokens") or 0, usage.get("prompt_tokens") or 0
    record.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
