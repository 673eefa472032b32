"""Decode bodies, queries and parts of bodies. The errors name the field. Pure."""

import itertools
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct

from server.protocol.errors import InvalidRequest

T = TypeVar("T")

MAX_KEY_CHARACTERS = 64
"""Characters of a key in an error message."""
MAX_CHECKED_ENTRIES = 4096
"""Number of entries to check; 4096 block the event loop for 20 ms."""
# msgspec's messages end with the place: " - at `$.input[0].role`", " - at `key` in `$.metadata`".
_ENTRY = re.compile(r" - at `(?:key` in `\$\.(\w+)|\$\.(\w+)\[\.\.\.\])`\Z")
_NOUNS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a string",
    "bool": "a boolean",
    "array": "an array",
    "object": "an object",
}
_SHAPES = (
    (re.compile(r"Expected `(?:array|object)` of length <= (\d+)"), "{subject} may have at most {0} entries"),
    (re.compile(r"Expected `str` of length <= (\d+)"), "{subject} may have at most {0} characters"),
    (re.compile(r"Expected `\w+` <= (\S+)"), "{subject} must be at most {0}"),
    (re.compile(r"Expected `\w+` >= (\S+)"), "{subject} must be at least {0}"),
    (re.compile(r"Expected `\w+` > (\S+)"), "{subject} must be above {0}"),
    (re.compile(r"Expected `(int.*)`, got `float`"), "{subject} must be {0}, not a fraction"),
    (re.compile(r"Expected `(.+)`, got `(\w+)`"), "{subject} must be {0}, not {1}"),
    (re.compile(r"Object missing required field `(\w+)`"), "`{0}` is missing in {subject}"),
)
"""Shapes of msgspec's messages, and sentences for them."""
_fields = msgspec.json.Decoder(dict[str, Raw])
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}
"""Decoders of parts by their types: each takes as long to make as to use."""


def read(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Decode a body that was cleaned by `server.http.bodies`. Raises InvalidRequest, which names the field."""
    if not body:
        raise InvalidRequest("The body is empty; send a JSON object.")
    return _decode(decoder, body, "")


def query(parameters: Mapping[str, str], kind: type[T]) -> T:
    """Decode the query of a URL. Raises InvalidRequest, which names the parameter."""
    try:
        return msgspec.convert(parameters, kind, strict=False)
    except msgspec.ValidationError as error:
        raise invalid_request(error) from error


def part(raw: Raw, kind: type[T], place: str) -> T:
    """Decode an item or part of a known type. Raises InvalidRequest, which names `place`."""
    decoder: msgspec.json.Decoder[T] | None = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    return _decode(decoder, bytes(raw), place)


def _decode(decoder: msgspec.json.Decoder[T], data: bytes, place: str) -> T:
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        raise invalid_request(error, place, decoder.type, data) from error
    except RecursionError as error:
        raise InvalidRequest("The body is nested too deeply; send flatter JSON.") from error
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}.") from error


def invalid_request(
    error: msgspec.ValidationError, place: str = "", kind: type[object] | None = None, data: bytes = b""
) -> InvalidRequest:
    """Return the error for `data` at `place`, which could not be decoded as `kind`."""
    message, _, inside = str(error).partition(" - at `")
    param = (place + inside.rpartition("$")[2].rstrip("`")).lstrip(".") or None
    if param is None:
        return InvalidRequest(_sentence(message, "the body"))
    key = _wrong_key(str(error), kind, data)
    if key is not None and param.endswith("[...]"):
        param = f"{param.removesuffix('[...]')}.{key}"
    elif key is not None:
        return InvalidRequest(_sentence(message, f"the key {key!r} of `{param}`"), param=param)
    return InvalidRequest(_sentence(message, f"`{param}`"), param=param)


def _sentence(message: str, subject: str) -> str:
    """Return a message of msgspec as a sentence with the subject; one of unknown shape stays as it is."""
    for shape, form in _SHAPES:
        if found := shape.fullmatch(message):
            text = form.format(*map(_nouns, found.groups()), subject=subject)
            return f"{text[0].upper()}{text[1:]}."
    return f"{message} in {subject}."


def _nouns(types: str) -> str:
    *others, last = (_NOUNS.get(each, each) for each in types.split(" | "))
    return f"{', '.join(others)} or {last}" if others else last


def _wrong_key(message: str, kind: type[object] | None, data: bytes) -> str | None:
    """Return the key of the first invalid entry, which msgspec's message omits; None if the error has no entry."""
    place = _ENTRY.search(message)
    if place is None or kind is None or not issubclass(kind, Struct):
        return None
    field = place[1] or place[2]
    field_type = next(each.type for each in msgspec.structs.fields(kind) if each.encode_name == field)
    with suppress(msgspec.DecodeError, RecursionError):  # errors after the invalid entry
        entries = msgspec.json.decode(_fields.decode(data)[field], type=dict[str, Raw]).items()
        for key, value in itertools.islice(entries, MAX_CHECKED_ENTRIES):
            try:
                msgspec.json.decode(msgspec.json.encode({key: value}), type=field_type)
            except msgspec.ValidationError:
                return key if len(key) <= MAX_KEY_CHARACTERS else f"{key[:MAX_KEY_CHARACTERS]}..."
    return None
