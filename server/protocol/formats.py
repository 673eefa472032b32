"""Output formats: in the request, in the echo, and in the prompt. Pure.

The system message describes the format, although the grammar enforces it: a schema's names and descriptions are
instructions, and small models write better text if they know the format. The description follows all other
instructions, so that the beginning of the prompt is equal with and without a format.
"""

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta, Raw, Struct

MAX_PROMPT_CHARACTERS = 4096
"""Characters of a schema in the prompt (1,500 tokens). A longer schema is enforced but not described."""

Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]


class PlainFormat(Struct, frozen=True, tag="text"):
    pass


class JsonFormat(Struct, frozen=True, tag="json_object"):
    pass


class SchemaFormat(Struct, frozen=True, tag="json_schema"):
    name: Name
    schema: Raw
    description: str | None = None
    strict: bool | None = None


Format: TypeAlias = PlainFormat | JsonFormat | SchemaFormat
Verbosity: TypeAlias = Literal["low", "medium", "high"]
PLAIN = PlainFormat()


class TextOptions(Struct, frozen=True):
    """Field `text` of a request."""

    format: Format | None = None
    verbosity: Verbosity | None = None


def echoed(format_: Format, enforced: bool = True) -> Format:
    """Return the format for the echo, with `strict` as it is enforced."""
    if isinstance(format_, SchemaFormat):
        return msgspec.structs.replace(format_, strict=enforced, schema=Raw(bytes(format_.schema)))
    return format_


def prompt_text(format_: Format, with_calls: bool = False) -> str:
    """Return the description for the prompt, empty for plain text. `with_calls` allows function calls too."""
    answer = "If you call no function, answer" if with_calls else "Answer"
    if isinstance(format_, PlainFormat):
        return ""
    if isinstance(format_, JsonFormat) or len(bytes(format_.schema)) > MAX_PROMPT_CHARACTERS:
        return f"{answer} with a JSON object only."
    description = f" ({format_.description})" if format_.description else ""
    return f"{answer} with JSON only{description}, as this JSON schema says:\n{bytes(format_.schema).decode()}"
