"""Encode the summary of a conversation as the `encrypted_content` of a `compaction` item. Pure.

The text is base64, not encrypted, despite the name of the field in both specifications: it contains only what the
client has sent or received, a key would have to survive restarts and moves to other machines, and users may want to
read the summary (`base64 -d` shows it). It is not signed either: an altered summary can do no more than a message that
the client writes.
"""

import base64
import binascii

import msgspec
from msgspec import Struct

from engine.chat_template import Message

VERSION = 1
HEADING = "What was said before, in summary:\n\n"


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


def render_summary(summary: str) -> Message:
    """Return the summary as a message of the user, because it deserves no more trust than the user's input."""
    return Message("user", HEADING + summary)


def is_summary(message: Message) -> bool:
    return message.role == "user" and message.content.startswith(HEADING)
