"""Find markers in the bytes of the tokens that a model writes, however the tokens split them.

A control token is encoded as its name between two bytes that UTF-8 does not use. So a name that the model spells out
in plain tokens is text, as it is for `notations.scanner`, which finds the same markers in the decoded text.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from engine.model import FloatArray
from engine.tokenizer import Vocabulary

CONTROL, _END = b"\xfe", b"\xff"
"""Bytes before and after a control token's name."""


class Marker(Struct, frozen=True, eq=False):
    """A marker, and the tokens that would complete it and write more."""

    text: bytes
    """The marker as `encode_marker` returns it."""
    overrun_tokens: Mapping[int, NDArray[np.int64]] = {}
    """Length of a written prefix -> tokens that would complete the marker and continue with bytes that can't follow."""


class MarkerMatcher:
    """Finds the first of several markers in a stream of bytes."""

    def __init__(self, markers: Sequence[Marker]) -> None:
        self._markers = markers
        self._tail_length = max((len(marker.text) for marker in markers), default=1) - 1
        self.tail = b""
        """The last bytes, which may be the start of a marker."""

    def feed(self, data: bytes) -> tuple[Marker, bytes] | None:
        """Return the marker that ends first and the bytes that follow it; None if no marker is complete."""
        text = self.tail + data
        found = [
            (at + len(marker.text), -len(marker.text), marker)
            for marker in self._markers
            if (at := text.find(marker.text)) >= 0
        ]
        if not found:
            self.tail = text[max(len(text) - self._tail_length, 0) :]
            return None
        self.tail = b""
        end, _, marker = min(found, key=lambda each: each[:2])
        return marker, text[end:]

    def forget(self, marker: Marker) -> None:
        """Stop looking for a marker."""
        self._markers = [each for each in self._markers if each is not marker]

    def forbid(self, logits: FloatArray) -> None:
        """Mask the tokens that would overrun a marker."""
        for marker in self._markers:
            for written, tokens in marker.overrun_tokens.items():
                if self.tail.endswith(marker.text[:written]):
                    logits[tokens] = -np.inf


_FIRST_WORD = re.compile(r"[<\[]\W?[A-Za-z]{4,}")
"""First word of a tag. A model that can't complete `<tool_call>` would write `<tool-call>` and the rest of the call."""


def overrun_tokens(
    vocabulary: Vocabulary, marker: bytes, follows: Callable[[bytes], bool]
) -> dict[int, NDArray[np.int64]]:
    """Return `Marker.overrun_tokens`. `follows` returns True if bytes may follow the marker."""
    found: dict[int, NDArray[np.int64]] = {}
    follows = cache(follows)  # many tokens have the same rest
    if marker.endswith(_END) and not follows(b""):
        *_, last = tokens(vocabulary, marker)
        return {marker.rfind(CONTROL): np.array([last])}
    for written in range(marker.rfind(_END) + 1, len(marker)):
        rest = marker[written:]
        ids = vocabulary.token_index.starting_with(rest) if written else vocabulary.tokens_containing(rest)
        if overrunning := [id_ for id_ in ids if not follows(vocabulary.bytes_of(id_).partition(rest)[2])]:
            found[written] = np.array(overrunning)
    return found


def forbidden_marker(vocabulary: Vocabulary, text: str, prefix: str = "") -> Marker:
    """Return a marker that the model can't write: the token that would complete it, or its first word, is masked.

    `prefix` is the start of the answer that the prompt already has.
    """
    is_begun = bool(prefix) and text.startswith(prefix)
    word = None if is_begun or vocabulary.control.match(text) else _FIRST_WORD.match(text)
    marker = encode_marker(vocabulary, word[0] if word else text)
    return Marker(marker, overrun_tokens(vocabulary, marker, lambda rest: False))


def name_overrun_tokens(vocabulary: Vocabulary) -> dict[bool, NDArray[np.int64]]:
    """Return the tokens that close a JSON name and continue with bytes that cannot follow in a call, keyed by "name
    already begun"."""
    found: dict[bool, list[int]] = {False: [], True: []}
    for id_ in vocabulary.tokens_containing(b'"'):
        pieces = vocabulary.bytes_of(id_).split(b'"')
        invalid = [not _AFTER_NAME.fullmatch(b'"'.join(pieces[at:])) for at in range(1, len(pieces))]
        for begun in found:
            if any(invalid[not begun :]):
                found[begun].append(id_)
    return {begun: np.array(ids, np.int64) for begun, ids in found.items()}


_AFTER_NAME = re.compile(rb'\s*(,\s*"?)?')


def token_bytes(vocabulary: Vocabulary, token: int) -> bytes:
    """Return the bytes of a token; a control token's name stands between two marks."""
    if token >= len(vocabulary):
        return b""
    if text := vocabulary.bytes_of(token):
        return text
    name = vocabulary.name_of(token)
    return CONTROL + name.encode() + _END if vocabulary.control_id(name) == token else b""


def encode_marker(vocabulary: Vocabulary, text: str) -> bytes:
    """Return the bytes of a text in which names of control tokens mean these tokens."""
    return vocabulary.control.sub("\udcfe\\g<0>\udcff", text).encode(errors="surrogateescape")


def tokens(vocabulary: Vocabulary, encoded: bytes) -> Iterator[int]:
    """Yield the model's own tokens of an encoded text, up to a byte that it can't write."""
    for number, part in enumerate(re.split(b"[\xfe\xff]", encoded)):
        if number % 2:
            id_ = vocabulary.control_id(part.decode())
            assert id_ is not None, "the name comes from the vocabulary"
            yield id_
        else:
            yield from vocabulary.encode_bytes(part)
