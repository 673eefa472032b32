"""A `compaction` item: the encoding of its summary, and its events while that is written. Pure.

`encrypted_content` is base64, not encrypted, despite the name of the field in both specifications: it contains only
what the client has sent or received, a key would have to survive restarts and moves to other machines, and users may
want to read the summary (`base64 -d` shows it). It is not signed either: an altered summary can do no more than a
message that the client writes.
"""

import base64
import binascii
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct

from server.protocol.events import CompactionCompacting, Event, OutputItemAdded, OutputItemDone
from server.protocol.output_items import CompactionItem, Logprob
from server.stream.open_item import Outcome
from server.stream.open_text_items import OpenTextItem

VERSION = 1
DELTAS_PER_EVENT = 16
"""Pieces of the summary for each further event; a slow machine writes them in some seconds."""


class Summary(Struct, frozen=True, tag="responsed.summary", tag_field="form"):
    version: int
    summary: str


_decoder = msgspec.json.Decoder(Summary)


def encode_summary(summary: str) -> str:
    return base64.b64encode(msgspec.json.encode(Summary(VERSION, summary))).decode()


def decode_summary(content: str) -> str | None:
    """Return the summary; None if another server, or a later version of this one, encoded the content."""
    try:
        decoded = _decoder.decode(base64.b64decode(content, validate=True))
    except (binascii.Error, ValueError, msgspec.DecodeError):
        return None
    return decoded.summary if decoded.version == VERSION else None


class OpenCompaction(OpenTextItem):
    """The summary does not stream: events report that the model writes it, so that no client takes it for dead."""

    prefix = "cmp"

    def added(self) -> Iterator[Event]:
        yield OutputItemAdded(self._number(), self._index, CompactionItem(self._id, ""))
        yield CompactionCompacting(self._number(), self._id, self._index)

    def delta(self, text: str, logprobs: Sequence[Logprob] = ()) -> Iterator[Event]:
        self._texts.append(text)
        if len(self._texts) % DELTAS_PER_EVENT == 0:
            yield CompactionCompacting(self._number(), self._id, self._index)

    def done(self, status: Outcome) -> Iterator[Event]:
        """Close the item, which has no status. A summary that was cut is used as far as it goes."""
        content = encode_summary("".join(self._texts).strip())
        yield OutputItemDone(self._number(), self._index, CompactionItem(self._id, content))
