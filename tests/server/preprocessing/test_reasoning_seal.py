"""Sealed reasoning: this server's texts are opened, all others stay as they are, and long work leaves the loop."""

import threading
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from server.preprocessing import reasoning_seal
from server.preprocessing.reasoning_seal import ReasoningSeal
from server.protocol.request import Request
from server.work_thread import LARGE, WorkThread


def request_with(*sealed: str) -> Request:
    """Return a request with sealed reasoning items."""
    items = [{"type": "reasoning", "summary": [], "encrypted_content": each} for each in sealed]
    return msgspec.json.decode(msgspec.json.encode({"input": items}), type=Request)


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
    request = request_with(*[(seal if is_ours else other).seal("x" * length)] * count)
    assert texts(await seal.opened(request)) == ["x" * length if is_ours else None] * count
    assert threading.current_thread() not in threads
    await seal.opened(request_with(seal.seal("x")))
    assert threading.current_thread() in threads, "a thread costs more than a short text"


async def test_text_that_is_too_long_to_be_ours_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    seal = ReasoningSeal(None, WorkThread())
    await seal.load()
    sealed = seal.seal("x")
    assert texts(await seal.opened(request_with(sealed))) == ["x"]
    monkeypatch.setattr(reasoning_seal, "MAX_SEALED_CHARACTERS", len(sealed) - 1)
    assert texts(await seal.opened(request_with(sealed))) == [None]
