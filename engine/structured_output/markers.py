"""Markers in what a model writes, as the thread looks for them: token by token, in bytes, however they are cut.

Control tokens stand there by their names between two bytes that UTF-8 has not: a name that is spelled out is text, as
for `scanner`, which looks for the same on the other side.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from engine.model import FloatArray
from engine.tokenizer import Vocabulary

CONTROL, _END = b"\xfe", b"\xff"
"""Around a control token's name."""


class Marker(Struct, frozen=True, eq=False):
    text: bytes
    """As `encode_marker`."""
    overrun_tokens: Mapping[int, NDArray[np.int64]] = {}
    """Where so many bytes of it are there: the tokens that would end it, and go on with what can't follow."""


class MarkerMatcher:
    """Looks for markers."""

    def __init__(self, markers: Sequence[Marker]) -> None:
        self._markers = markers
        self._kept = max((len(marker.text) for marker in markers), default=1) - 1
        self.tail = b""
        """The last bytes, in which a marker may have begun."""

    def feed(self, data: bytes) -> tuple[Marker, bytes] | None:
        """The marker that ends first, if one does, and what follows it."""
        text = self.tail + data
        found = [
            (at + len(marker.text), -len(marker.text), marker)
            for marker in self._markers
            if (at := text.find(marker.text)) >= 0
        ]
        if not found:
            self.tail = text[max(len(text) - self._kept, 0) :]
            return None
        self.tail = b""
        end, _, marker = min(found, key=lambda each: each[:2])
        return marker, text[end:]

    def forget(self, marker: Marker) -> None:
        """Look for that one no longer."""
        self._markers = [each for each in self._markers if each is not marker]

    def forbid(self, logits: FloatArray) -> None:
        """What no marker may go on with."""
        for marker in self._markers:
            for there, tokens in marker.overrun_tokens.items():
                if self.tail.endswith(marker.text[:there]):
                    logits[tokens] = -np.inf


_FIRST_WORD = re.compile(r"[<\[]\W?[A-Za-z]{4,}")
"""First word of a tag. A model that may not end `<tool_call>` would write `<tool-call>` and the rest of the call."""


def overrun_tokens(
    vocabulary: Vocabulary, marker: bytes, follows: Callable[[bytes], bool]
) -> dict[int, NDArray[np.int64]]:
    """See Marker. `follows`: whether that may come behind it."""
    found: dict[int, NDArray[np.int64]] = {}
    if marker.endswith(_END) and not follows(b""):
        *_, last = tokens(vocabulary, marker)
        return {marker.rfind(CONTROL): np.array([last])}
    for there in range(marker.rfind(_END) + 1, len(marker)):
        rest = marker[there:]
        ids = vocabulary.spellings.starting_with(rest) if there else vocabulary.spellings.containing(rest)
        if wrong := [id_ for id_ in ids if not follows(vocabulary.bytes_of(id_).partition(rest)[2])]:
            found[there] = np.array(wrong)
    if marker.endswith(_END) and not follows(b""):
        found[marker.rfind(CONTROL)] = np.array(list(tokens(vocabulary, marker))[-1:])
    return found


def forbidden(vocabulary: Vocabulary, text: str) -> Marker:
    """A marker that may not be written: the token that would complete it, or its first word, is masked."""
    word = None if vocabulary.control.match(text) else _FIRST_WORD.match(text)
    marker = encode_marker(vocabulary, word[0] if word else text)
    return Marker(marker, overrun_tokens(vocabulary, marker, lambda rest: False))


def name_overrun_tokens(vocabulary: Vocabulary) -> dict[bool, NDArray[np.int64]]:
    """The tokens that would end a name in JSON, and go on with what no call goes on with; by whether the name has
    begun before."""
    found: dict[bool, list[int]] = {False: [], True: []}
    for id_ in vocabulary.spellings.containing(b'"'):
        pieces = vocabulary.bytes_of(id_).split(b'"')
        wrong = [not _BEHIND_A_NAME.fullmatch(b'"'.join(pieces[at:])) for at in range(1, len(pieces))]
        for within in found:
            if any(wrong[not within :]):
                found[within].append(id_)
    return {within: np.array(ids, np.int64) for within, ids in found.items()}


_BEHIND_A_NAME = re.compile(rb'\s*(,\s*"?)?')


def token_bytes(vocabulary: Vocabulary, token: int) -> bytes:
    """A token as it is looked at."""
    if token >= len(vocabulary):
        return b""
    if text := vocabulary.bytes_of(token):
        return text
    name = vocabulary.name_of(token)
    return CONTROL + name.encode() + _END if vocabulary.control_id(name) == token else b""


def encode_marker(vocabulary: Vocabulary, text: str) -> bytes:
    """A text with names of control tokens in it, as it looks when it is written."""
    return vocabulary.control.sub("\udcfe\\g<0>\udcff", text).encode(errors="surrogateescape")


def tokens(vocabulary: Vocabulary, spelled: bytes) -> Iterator[int]:
    """The same, as the model would write it; up to a byte that it can't write."""
    for number, part in enumerate(re.split(b"[\xfe\xff]", spelled)):
        if number % 2:
            id_ = vocabulary.control_id(part.decode())
            assert id_ is not None, "the vocabulary named it"
            yield id_
        else:
            yield from vocabulary.exactly(part)
