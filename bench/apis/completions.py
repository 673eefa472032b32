"""Legacy completions: a prompt without a chat template. https://platform.openai.com/docs/api-reference/completions"""

from typing import Any

from apis.question import Question


def body(question: Question) -> dict[str, Any]:
    """Return the fields of a request. Messages become lines. Raises ValueError for a schema, which has no field."""
    if question.format_ is not None:
        raise ValueError("completions have no JSON schema; use --api responses or chat for this scenario")
    items = question.input_
    lines = [items] if isinstance(items, str) else [f"{item['role']}: {_text(item['content'])}" for item in items]
    fields: dict[str, Any] = {
        "prompt": "\n\n".join([question.instructions, *lines] if question.instructions else lines),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return fields if question.tokens is None else fields | {"max_tokens": question.tokens}


def _text(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)
