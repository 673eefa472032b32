"""Sealed reasoning: this server's texts are opened, all others stay as they are, and long work leaves the loop."""

import threading
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from server.preprocessing.reasoning_seal import PIECE, ReasoningSeal, SealKey, generated
from server.protocol.request import Request
from server.work_thread import LARGE, WorkThread


def request_with(*sealed: str) -> tuple[Request, int]:
    """Return a request with sealed reasoning items, and its size."""
    items = [{"type": "reasoning", "summary": [], "encrypted_content": each} for each in sealed]
    body = msgspec.json.encode({"input": items})
    return msgspec.json.decode(body, type=Request), len(body)


def texts(request: Request) -> list[Any]:
    """Return the text of each item; None for those that were not opened."""
    assert isinstance(request.input, list)
    items = [msgspec.json.decode(raw) for raw in request.input]
    return [item["content"][0]["text"] if "content" in item else None for item in items]


@pytest.mark.parametrize("is_ours", [True, False])
@pytest.mark.parametrize(("count", "length"), [(1, LARGE * 4), (LARGE // 100, 1)], ids=["one", "many"])
async def test_large_reasoning_is_opened_beside_the_event_loop(
    count: int, length: int, is_ours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal, other = ReasoningSeal(None, WorkThread()), ReasoningSeal(None, WorkThread())
    await seal.load()
    await other.load()
    threads, opened = set(), ReasoningSeal._opened

    def recorded(self: ReasoningSeal, raw: Raw) -> Raw:
        threads.add(threading.current_thread())
        return opened(self, raw)

    monkeypatch.setattr(ReasoningSeal, "_opened", recorded)
    request, size = request_with(*[(seal if is_ours else other).seal("x" * length)] * count)
    assert texts(await seal.opened(request, size)) == ["x" * length if is_ours else None] * count
    assert threading.current_thread() not in threads
    await seal.opened(*request_with(seal.seal("x")))
    assert threading.current_thread() in threads, "a thread costs more than a short text"


@pytest.mark.parametrize("length", [0, 1, PIECE // 4 * 3, PIECE])
def test_key_opens_what_it_has_sealed_in_pieces(length: int) -> None:
    key = SealKey(generated())
    assert key.opened(key.seal(b"x" * length)) == b"x" * length


@pytest.mark.parametrize("length", [1, PIECE])
def test_key_opens_nothing_else(length: int) -> None:
    key, other = SealKey(generated()), SealKey(generated())
    sealed = key.seal(b"x" * length)
    middle = len(sealed) // 2
    changed = sealed[:middle] + (b"A" if sealed[middle : middle + 1] != b"A" else b"B") + sealed[middle + 1 :]
    for each in (other.seal(b"x" * length), changed, sealed[:-4], sealed[:-1], sealed[4:]):
        assert key.opened(each) is None


@pytest.mark.parametrize("garbage", [b"", b"=", b"A", b"AAAA", b"gAAAA", b"\xff\x00", b"?" * 100, b"A" * PIECE])
def test_key_does_not_open_garbage(garbage: bytes) -> None:
    assert SealKey(generated()).opened(garbage) is None
