"""Read the content of messages and outputs: texts, files, and placeholders for what a text model cannot read. Pure."""

import base64
import binascii
import itertools
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import unquote_to_bytes

import msgspec

from server.protocol.decoding import part
from server.protocol.errors import InvalidRequest
from server.protocol.fields import is_null
from server.protocol.input_items import (
    ChatFilePart,
    FilePart,
    RefusalPart,
    ReplayedPart,
    TextPart,
    as_text,
    replayed_parts,
)
from server.protocol.request import TypeAndRole

PLACEHOLDERS = {
    "input_image": "[image omitted: this model reads text]",
    "image_url": "[image omitted: this model reads text]",
    "image": "[image omitted: this model reads text]",
    "computer_screenshot": "[image omitted: this model reads text]",
    "input_audio": "[audio omitted: this model reads text]",
    "input_video": "[video omitted: this model reads text]",
    "input_file": "[file omitted: this model reads text]",
}
"""Text in place of parts of earlier turns that are not text, by type."""


class ContentReader:
    """Read contents. The newest message of the user is rejected if a text model cannot read it.

    In older messages a placeholder replaces such a part, since clients resend it with every turn.
    """

    def __init__(self, skipped: list[str]) -> None:
        """`skipped` collects the names of unknown parts."""
        self._skipped = skipped
        self.breakpoints: dict[str, tuple[int, ...]] = {}
        """Characters before each breakpoint, by the text that has breakpoints."""

    def text(self, content: str | list[msgspec.Raw] | None, place: str, newest: bool) -> str:
        """Return the text of a message's content. `newest`: True for the user's newest message.

        Raises InvalidRequest for a part that a text model cannot read.
        """
        if isinstance(content, str):
            return content
        before = len(self._skipped)
        text = self._parts_text([(raw, f"{place}[{index}]") for index, raw in enumerate(content or ())], newest)
        if newest and not text and (content is None or len(self._skipped) > before):
            skipped = f"; skipped: {', '.join(self._skipped[before:])}" if content else ""
            raise InvalidRequest(f"`{place}` has no text for the model to answer{skipped}.", param=place)
        return text

    def output_text(self, raw: msgspec.Raw) -> str:
        """Return the text of an output, the texts of its parts, or its JSON. A placeholder replaces each image."""
        if (parts := replayed_parts(raw)) is None:
            return as_text(raw)
        texts = [self._output_part(part) for part in parts]
        marked = [not is_null(part.prompt_cache_breakpoint) for part in parts]
        return self._joined(texts, marked)

    def _output_part(self, output: ReplayedPart) -> str:
        if output.text is not None:
            return output.text
        with suppress(binascii.Error, UnicodeDecodeError):
            if output.file_data is not None:
                return _data(output.file_data).decode()
        self._skipped.append(f"part {output.type} of an output")
        return PLACEHOLDERS.get(output.type, "")

    def _parts_text(self, parts: Sequence[tuple[msgspec.Raw, str]], newest: bool) -> str:
        breakpoints = [part(raw, TypeAndRole, place).prompt_cache_breakpoint for raw, place in parts]
        texts = [self._part(raw, place, newest) for raw, place in parts]
        text = self._joined(texts, [each is not None for each in breakpoints])
        if any(each is not None and each.ttl for each in breakpoints):
            self._skipped.append("prompt_cache_breakpoint.ttl")
        return text

    def _joined(self, texts: Sequence[str], marked: Sequence[bool]) -> str:
        """Return the joined texts of parts. Record the ends of the marked ones as breakpoints."""
        text = "".join(texts)
        if any(marked):
            self.breakpoints[text] = tuple(itertools.compress(itertools.accumulate(map(len, texts)), marked))
        return text

    def _part(self, raw: msgspec.Raw, place: str, newest: bool) -> str:
        match part(raw, TypeAndRole, place):
            case TypeAndRole("input_text" | "output_text" | "text"):
                return part(raw, TextPart, place).text or ""
            case TypeAndRole("refusal"):
                return part(raw, RefusalPart, place).refusal or ""
            case TypeAndRole("input_file"):
                return self._file(part(raw, FilePart, place), place, newest)
            case TypeAndRole("file"):
                return self._file(part(raw, ChatFilePart, place).file, f"{place}.file", newest)
            case TypeAndRole(str(kind)) if kind in PLACEHOLDERS:
                return self._placeholder(kind, place, newest)
            case TypeAndRole(kind):
                self._skipped.append(f"part {kind or 'without type'}")
                return ""

    def _placeholder(self, kind: str, place: str, newest: bool) -> str:
        """Return the text in place of a part that is not text. Raises InvalidRequest."""
        if newest:
            raise InvalidRequest(f"`{place}` is of type {kind}; this model reads text only.", param=place)
        self._skipped.append(f"part {kind}")
        return PLACEHOLDERS[kind]

    def _file(self, file: FilePart, place: str, newest: bool) -> str:
        """Return the file's text, or a placeholder for it. Raises InvalidRequest."""
        try:
            return _file_text(file, place)
        except InvalidRequest:
            if newest:
                raise
            self._skipped.append("part input_file")
            return "[file omitted: this server reads text in `file_data` only]"


def _file_text(file: FilePart, place: str) -> str:
    """Return the file's text. The server fetches no files, so a file by id or URL raises InvalidRequest."""
    if file.file_data is None:
        raise InvalidRequest(f"`{place}` must contain its text in `file_data`: ids and URLs are not read.", param=place)
    try:
        return _data(file.file_data).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise InvalidRequest(f"`{place}.file_data` is not UTF-8 text.", param=f"{place}.file_data") from error


def _data(url: str) -> bytes:
    """Return the bytes of a data URL (RFC 2397), or of the text if it is none. Raises binascii.Error."""
    if not url.startswith("data:"):
        return url.encode()
    kind, comma, data = url.partition(",")
    if not comma:
        raise binascii.Error("a data URL without its comma")
    raw = unquote_to_bytes(data)
    return base64.b64decode(raw, validate=True) if kind.endswith(";base64") else raw
