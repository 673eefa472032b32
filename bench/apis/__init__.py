"""The APIs that a server may have: the request of each, and the events of its stream."""

import json
from dataclasses import dataclass
from typing import Any, Protocol

from record import Record

from apis import chat, completions, responses
from apis.question import Question

__all__ = ["APIS", "Question", "apply_event"]


class _Body(Protocol):
    def __call__(self, question: Question) -> dict[str, Any]: ...


@dataclass(slots=True, frozen=True)
class Api:
    """An API: its path below /v1, and the body of a request without its model."""

    path: str
    body: _Body
    counts: bool
    """True if the request must ask for the usage, which clients do not do by default."""


APIS = {
    "responses": Api("/v1/responses", responses.body, counts=False),
    "chat": Api("/v1/chat/completions", chat.body, counts=True),
    "completions": Api("/v1/completions", completions.body, counts=True),
}


def apply_event(record: Record, time: float, event: dict[str, Any]) -> None:
    """Add one event of any of the APIs to the record."""
    if "choices" in event:
        chat.apply_chunk(record, time, event)
    else:
        responses.apply_event(record, time, event)
    if _is_error(event) and not record.error:
        record.error, record.error_kind, record.status = json.dumps(event), "failed", "failed"


def _is_error(event: dict[str, Any]) -> bool:
    # llama-server sends `data: {"error": ...}` without a type when it fails.
    kind = event.get("type")
    return kind in {"error", "response.failed"} or (kind is None and "error" in event)
