"""What msgspec says of what can't be read -> the error that names the place. Pure."""

import itertools
import re
from contextlib import suppress

import msgspec
from msgspec import Raw, Struct

from server.protocol.errors import InvalidRequest

MOST_TOLD = 64
"""Characters of a key."""
MOST_ENTRIES = 4096
"""That are looked at: 20 ms in which nothing else is done."""
# It ends its messages with the place: " - at `$.input[0].role`", " - at `key` in `$.metadata`".
_ENTRY = re.compile(r" - at `(?:key` in `\$\.(\w+)|\$\.(\w+)\[\.\.\.\])`\Z")
_fields = msgspec.json.Decoder(dict[str, Raw])


def refused(
    error: msgspec.ValidationError, place: str = "", kind: type[object] | None = None, data: bytes = b""
) -> InvalidRequest:
    """`place` is where the `data` stand that should have been of that kind."""
    message, _, inside = str(error).partition(" - at `")
    param = (place + inside.rpartition("$")[2].rstrip("`")).lstrip(".") or None
    if param is None:
        return InvalidRequest(f"{message}.")
    key = _wrong_key(str(error), kind, data)
    if key is not None and param.endswith("[...]"):
        param = f"{param.removesuffix('[...]')}.{key}"
    elif key is not None:
        message += f" as the key {key!r}"
    return InvalidRequest(f"{message} in `{param}`.", param=param)


def _wrong_key(message: str, kind: type[object] | None, data: bytes) -> str | None:
    """Of the first entry that can't be read, which msgspec doesn't tell. None where it is not about one."""
    place = _ENTRY.search(message)
    if place is None or kind is None or not issubclass(kind, Struct):
        return None
    field = place[1] or place[2]
    whole = next(each.type for each in msgspec.structs.fields(kind) if each.encode_name == field)
    with suppress(msgspec.DecodeError, RecursionError):  # of what stands behind it
        entries = msgspec.json.decode(_fields.decode(data)[field], type=dict[str, Raw]).items()
        for key, value in itertools.islice(entries, MOST_ENTRIES):
            try:
                msgspec.json.decode(msgspec.json.encode({key: value}), type=whole)
            except msgspec.ValidationError:
                return key if len(key) <= MOST_TOLD else f"{key[:MOST_TOLD]}..."
    return None
