"""One request, before an API gives it its form."""

from dataclasses import dataclass
from typing import Any


@dataclass(slots=True, frozen=True)
class Question:
    """Texts and limits of one request. `input_` is a text, or messages of the Responses API."""

    input_: str | list[dict[str, Any]]
    tokens: int | None = None
    """Maximum tokens of output."""
    instructions: str | None = None
    format_: dict[str, Any] | None = None
    """A `text.format` of the Responses API."""
