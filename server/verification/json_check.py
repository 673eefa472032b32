"""Check of JSON text against a schema while it arrives: the earliest part that breaks it is refused. Pure.

The first character of a value shows its type, the beginning of a string or key whether it can be an allowed one. The
end of a value is the time for its full validation.
"""

import re
from typing import Any

import msgspec
from msgspec import Struct

from server.verification.schema import Schema, VerifiedSchema
from server.verification.watch import StringWatch

KINDS = {"{": "object", "[": "array", '"': "string", "t": "boolean", "f": "boolean", "n": "null"}
KINDS |= dict.fromkeys("-0123456789", "number")
WHITE = " \t\n\r"
MAX_DEPTH = 128
"""Maximum levels of nesting."""
ESCAPES = frozenset('"\\/bfnrtu')
_STRING_PART = re.compile(r'[^"\\\x00-\x1f]*')
_SCALAR_PART = re.compile(r"[-+.0-9A-Za-z]*")


class Mismatch(Exception):
    """The text is not JSON, or does not match the schema."""


class _Container(Struct):
    schema: Schema
    value: Any
    """Object or array so far."""
    key: str | None = None
    """Key of the object whose value comes."""
    needs: str = ""
    """Character, or kind of token, that must come next: `key`, `:`, `value`, or empty for a comma or the end."""
    fresh: bool = True
    """True while it is empty, so that it may end."""


class JsonCheck:
    def __init__(self, schema: VerifiedSchema) -> None:
        self._schema = schema
        self._open: list[_Container] = []
        self._token = ""
        """First character of the unfinished string or scalar; the whole scalar."""
        self._parts: list[str] = []
        """Parts of the unfinished string."""
        self._watch: StringWatch | None = None
        """Check of its beginnings; None if it may begin in any way."""
        self._escaped = False
        """True between a backslash and the character that it escapes."""
        self.complete = False
        """True once there is a whole value."""

    def feed(self, text: str) -> None:
        """Check more text. Raises Mismatch."""
        at = 0
        while at < len(text):
            at = self._inside(text, at) if self._token else self._between(text, at)

    def finish(self) -> None:
        """Check that the text is whole. Raises Mismatch."""
        if self._token and self._token[0] != '"':
            self._scalar()
        if not self.complete:
            raise Mismatch("it ends before it is complete")

    def _inside(self, text: str, at: int) -> int:
        """Read on in a string or scalar; return the place of the next character."""
        if self._token[0] != '"':
            end = _scalar_end(text, at)
            self._token += text[at:end]
            if end < len(text):
                self._scalar()
            return end
        if self._escaped:
            if text[at] not in ESCAPES:
                raise Mismatch(f"{self._place}: {text[at]!r} is no escape")
            self._parts.append(text[at])
            self._escaped = False
            return at + 1
        part = _STRING_PART.match(text, at)
        assert part is not None, "the pattern matches an empty text"
        self._parts.append(part[0])
        at = part.end()
        if at == len(text):
            if self._watch is not None:
                self._unfinished_string(self._watch)
            return at
        self._parts.append(text[at])
        if text[at] == '"':
            self._string()
        elif text[at] == "\\":
            self._escaped = True
        else:
            raise Mismatch(f"{self._place}: {text[at]!r} must be escaped")
        return at + 1

    def _between(self, text: str, at: int) -> int:
        """Read a character between strings and scalars; return the place of the next one."""
        character = text[at]
        if character in WHITE:
            return at + 1
        if self.complete:
            raise Mismatch("text follows the value")
        if self._open:
            self._in_container(self._open[-1], character)
        else:
            self._begin(character)
        return at + 1

    def _in_container(self, top: _Container, character: str) -> None:
        if not top.needs:
            self._after_value(top, character)
        elif top.needs == ":":
            if character != ":":
                raise Mismatch(f"{character!r} is not a colon")
            top.needs = "value"
        elif top.fresh and character in "]}":
            self._close(character)
        elif top.needs == "key":
            if character != '"':
                raise Mismatch(f"{character!r} begins no key")
            self._token, self._watch = character, self._schema.key_watch(top.schema)
        else:
            self._begin(character)

    def _after_value(self, top: _Container, character: str) -> None:
        if character != ",":
            self._close(character)
            return
        top.needs, top.fresh = ("key" if isinstance(top.value, dict) else "value"), False

    def _begin(self, character: str) -> None:
        """Begin a value by its first character."""
        kind = KINDS.get(character)
        if kind is None:
            raise Mismatch(f"{character!r} does not begin a JSON value")
        schema = self._expected()
        if not self._schema.allows(schema, kind):
            raise Mismatch(f"{self._place}: a value of the type {kind} is not allowed")
        if kind not in ("object", "array"):
            self._token, self._watch = character, self._schema.watch(schema) if kind == "string" else None
            return
        if len(self._open) >= MAX_DEPTH:
            raise Mismatch("it is nested too deeply")
        value: Any = {} if kind == "object" else []
        self._open.append(_Container(schema, value, needs="key" if kind == "object" else "value"))

    def _close(self, character: str) -> None:
        top = self._open[-1]
        if character != ("}" if isinstance(top.value, dict) else "]"):
            raise Mismatch(f"{character!r} is not expected")
        self._open.pop()
        self._add(top.value, top.schema)

    def _string(self) -> None:
        value = self._decoded()
        top = self._open[-1] if self._open else None
        if top is None or top.needs != "key":
            self._add(value, self._expected())
            return
        if value in top.value:
            raise Mismatch(f"{self._place}: the property {value!r} occurs twice")
        if self._schema.property(top.schema, value) is False:
            raise Mismatch(f"{self._place}: the property {value!r} is not allowed")
        top.key, top.needs, top.fresh = value, ":", False

    def _unfinished_string(self, watch: StringWatch) -> None:
        """Check the beginning of a string or key that must match something."""
        text = "".join(self._parts)
        if "\\" in text:
            try:
                text = _decode_string(f'"{text}"')
            except msgspec.DecodeError:
                return  # within an escape
        if (fault := watch.fault(text)) is not None:
            raise Mismatch(f"{self._place}: {fault}")

    def _scalar(self) -> None:
        schema = self._expected()
        self._add(self._decoded(), schema)

    def _decoded(self) -> Any:
        token = self._token + "".join(self._parts)
        self._token, self._parts = "", []
        try:
            return msgspec.json.decode(token.encode())
        except (msgspec.DecodeError, UnicodeEncodeError) as error:
            raise Mismatch(f"{token[:100]!r} is not a JSON value") from error

    def _expected(self) -> Schema:
        """Return the schema of the value that begins or ends here."""
        if not self._open:
            return self._schema.root
        top = self._open[-1]
        if isinstance(top.value, dict):
            return self._schema.property(top.schema, top.key or "")
        return self._schema.item(top.schema, len(top.value))

    def _add(self, value: Any, schema: Schema) -> None:
        """Validate a whole value, and add it to its container."""
        if (fault := self._schema.fault(value, schema)) is not None:
            raise Mismatch(f"{self._place}: {fault}")
        if not self._open:
            self.complete = True
            return
        top = self._open[-1]
        if isinstance(top.value, dict):
            top.value[top.key] = value
        else:
            top.value.append(value)
        top.needs, top.fresh = "", False

    @property
    def _place(self) -> str:
        """Path of the value that begins or ends here."""
        parts = [each.key or "" if isinstance(each.value, dict) else str(len(each.value)) for each in self._open]
        return f"`{'.'.join(parts)}`" if parts else "the value"


def _scalar_end(text: str, at: int) -> int:
    part = _SCALAR_PART.match(text, at)
    assert part is not None, "the pattern matches an empty text"
    return part.end()


_decode_string = msgspec.json.Decoder(str).decode
