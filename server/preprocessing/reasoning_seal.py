"""Sealed reasoning: `encrypted_content` of reasoning items, which clients without stored responses send back.

The text is encrypted and authenticated (Fernet: https://github.com/fernet/spec), so that a client can neither read nor
change it.
"""

import contextlib
import importlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from engine.platform import atomic_write
from server.protocol.request import Request
from server.store import AsyncStore
from server.work_thread import LARGE, WorkThread, size_of

KEY_NAME = "reasoning.key"
"""File of the key in the state folder."""
MAX_SEALED_CHARACTERS = 4_000_000
"""Longest text that may be sealed here: reasoning of half a million tokens. Decoding it stops all threads for 30 ms."""
_MARK = b'"encrypted_content"'

log = logging.getLogger("responsed")


class ReasoningSeal:
    """Seals and opens reasoning texts. The key is made at the first use, and its library is imported only then."""

    def __init__(self, path: Path | None, work: WorkThread, store: AsyncStore | None = None) -> None:
        """`path`: file of the key; None for a key of this run only. Servers that share a `store` have one key in it."""
        self._path = path
        self._work = work
        self._store = store if store is not None and store.responses.shared else None
        self._key: Any = None

    async def load(self) -> None:
        """Read or make the key, unless that is done. It takes 50 ms, so a thread does it. Raises StoreError."""
        if self._key is None and self._store is not None:
            made = await self._work.run(LARGE + 1, _generated)
            key = await self._store.run(self._store.responses.shared_secret, KEY_NAME, made)
            self._key = _fernet().Fernet(key)
        elif self._key is None:
            await self._work.run(LARGE + 1, self._load)

    def seal(self, text: str) -> str:
        """Return the sealed text. Call `load` before."""
        sealed: bytes = self._key.encrypt(text.encode(errors="replace"))
        return sealed.decode()

    async def opened(self, request: Request) -> Request:
        """Return the request with the texts of its sealed reasoning items. Items of other servers stay as they are."""
        if not isinstance(request.input, list):
            return request
        marked = await self._work.run(size_of(request.input), _marked, request.input)
        if not marked:
            return request
        await self.load()
        size = size_of([request.input[index] for index in marked])
        return replace(request, input=await self._work.run(size, self._all_opened, request.input, marked))

    def _all_opened(self, items: Sequence[Raw], marked: Sequence[int]) -> list[Raw]:
        """Return the items, of which those with the indexes `marked` may be sealed."""
        opened = list(items)
        for index in marked:
            opened[index] = self._opened(items[index])
        return opened

    def _opened(self, raw: Raw) -> Raw:
        try:
            item = msgspec.json.decode(raw)
        except (msgspec.DecodeError, RecursionError):  # its reader may skip the number that is out of range
            return raw
        if not isinstance(item, dict) or item.get("type") != "reasoning" or item.get("content"):
            return raw
        text = self._text(item.pop("encrypted_content", None))
        if text is None:
            return raw
        return Raw(msgspec.json.encode(item | {"content": [{"type": "reasoning_text", "text": text}]}))

    def _text(self, sealed: object) -> str | None:
        """Return the text of a sealed one; None if this server did not seal it."""
        if not isinstance(sealed, str) or len(sealed) > MAX_SEALED_CHARACTERS:
            return None
        with contextlib.suppress(_fernet().InvalidToken):
            text: bytes = self._key.decrypt(sealed.encode(errors="replace"))
            return text.decode()
        return None

    def _load(self) -> None:
        if self._key is None:
            self._key = self._made_key()

    def _made_key(self) -> Any:
        fernet = _fernet()
        if self._path is None:
            return fernet.Fernet(_generated())
        try:
            if not self._path.exists():
                _write(self._path, _generated())
            return fernet.Fernet(self._path.read_bytes())
        except (OSError, ValueError) as error:
            remedy = "sealed reasoning can be opened until the next restart only"
            log.warning("the key of sealed reasoning in %s is unusable (%s): %s", self._path, error, remedy)
            return fernet.Fernet(_generated())


def _generated() -> bytes:
    """Return a new key."""
    key: bytes = _fernet().Fernet.generate_key()
    return key


def _marked(items: Sequence[Raw]) -> list[int]:
    """Return the indexes of the items that may be sealed."""
    return [index for index, raw in enumerate(items) if _MARK in bytes(raw)]


def _write(path: Path, key: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with atomic_write(path, path.with_suffix(f".{os.getpid()}"), 0o600) as file:
        file.write(key)


def _fernet() -> Any:
    return importlib.import_module("cryptography.fernet")
