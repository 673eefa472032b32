"""What an answer may have to be: as it is asked for, as it is echoed, and as the model is told. Data, and pure.

The model is told, in the system message, though it couldn't do otherwise: a schema's names and descriptions are
instructions, and small models write better what they know of beforehand. It stands behind all other instructions, so
what is said there stays the beginning of the prompt, with and without a format.
"""

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta, Raw, Struct

MOST_TOLD = 4096
"""Characters of a schema that the model is told: 1,500 tokens. A longer one is held, and not told."""

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


class TextWish(Struct, frozen=True):
    """`text`."""

    format: Format | None = None
    verbosity: Verbosity | None = None


def in_effect(format_: Format) -> Format:
    """As it is echoed. Every schema is held, so `strict` is true whatever was asked."""
    if isinstance(format_, SchemaFormat):
        return msgspec.structs.replace(format_, strict=True, schema=Raw(bytes(format_.schema)))
    return format_


def told(format_: Format, beside_calls: bool = False) -> str:
    """What the model is told of it; empty for plain text. `beside_calls`: whether it may call functions too."""
    answer = "If you call no function, answer" if beside_calls else "Answer"
    if isinstance(format_, PlainFormat):
        return ""
    if isinstance(format_, JsonFormat) or len(bytes(format_.schema)) > MOST_TOLD:
        return f"{answer} with a JSON object only."
    about = f" ({format_.description})" if format_.description else ""
    return f"{answer} with JSON only{about}, as this JSON schema says:\n{bytes(format_.schema).decode()}"
