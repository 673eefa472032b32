"""How the summary of a conversation travels: in the `encrypted_content` of a `compaction` item. Pure.

It is not encrypted, whatever the field is called (both specifications do): it says nothing that the client has not
sent or received itself, a key would have to be kept over restarts and machines, and people may want to read what their
model took for the gist. `base64 -d` shows it. It is not signed either: what a client makes of it can't do more than a
message of its own.
"""

import base64
import binascii

import msgspec
from msgspec import Struct

from engine.chat_template import Message

VERSION = 1
MOST_CHARACTERS = 10_485_760
"""Open Responses, `CompactionSummaryItemParam`."""
HEADING = "What was said before, in summary:\n\n"


class Summary(Struct, frozen=True, tag="responsed.summary", tag_field="form"):
    version: int
    summary: str


_decoder = msgspec.json.Decoder(Summary)


def encode_summary(summary: str) -> str:
    return base64.b64encode(msgspec.json.encode(Summary(VERSION, summary))).decode()


def decode_summary(content: str) -> str | None:
    """None for what somebody else has sealed, a later version of this server too."""
    try:
        sealed = _decoder.decode(base64.b64decode(content, validate=True))
    except (binascii.Error, ValueError, msgspec.DecodeError):
        return None
    return sealed.summary if sealed.version == VERSION else None


def render_summary(summary: str) -> Message:
    """To the model: as the user's, since no more trust is due to it."""
    return Message("user", HEADING + summary)


def is_summary(message: Message) -> bool:
    return message.role == "user" and message.content.startswith(HEADING)
