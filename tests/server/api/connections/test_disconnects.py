"""Clients that disconnect while they wait, and while they read."""

from collections.abc import Mapping
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.helpers import (
    Client,
    PacedModel,
    encode,
    post,
    served,
)


def endless_a(message: bytes) -> bytes:
    return message * 500 if message.startswith(b"a") else message


HANG_UPS = {
    "while streaming": (True, "aaa", 3),
    "while not streaming": (False, "aaa", 3),
    "while its prompt is read": (True, "a" * 300, 2),
    "while its prompt is read, not streaming": (False, "a" * 300, 2),
    "before anything was done": (True, "aaa", 0),
}


@pytest.mark.slow
@pytest.mark.parametrize(("stream", "input_", "decodes"), HANG_UPS.values(), ids=HANG_UPS)
async def test_disconnect_ends_generation(stream: bool, input_: str, decodes: int) -> None:
    model = PacedModel(endless_a, n_slots=1)
    async with served(model) as running:
        async with await Client.to(running) as client:
            model.hold()
            await client.create(input=input_, stream=stream)
            model.allow(decodes)
            await model.wait_begun(decodes + 1)
        await running.app.wait_idle()
        model.go()
        assert (await post(running, input="b")).text == "b"  # the only slot is free again
    assert sum(ord("a") in chunk.tokens for chunk in model.decoded) == decodes + 1


@pytest.mark.parametrize("stream", [True, False])
async def test_disconnect_while_queued_ends_request(stream: bool) -> None:
    model = PacedModel(n_slots=1)
    async with served(model) as running, await Client.to(running) as first, await Client.to(running) as third:
        model.hold()
        await first.create(input="x")
        await model.wait_begun(1)
        async with await Client.to(running) as second:
            await second.create(input="aaa", stream=stream)
            await trio.testing.wait_all_tasks_blocked()
        await trio.testing.wait_all_tasks_blocked()
        await third.create(input="y")
        model.go()
        assert [(await first.answer()).text, (await third.answer()).text] == ["x", "y"]
        await running.app.wait_idle()
    assert not any(ord("a") in chunk.tokens for chunk in model.decoded)


async def test_disconnect_does_not_affect_other_requests() -> None:
    model = PacedModel(endless_a)
    async with served(model) as running, await Client.to(running) as stays:
        model.hold()
        await stays.create(input="Hello", stream=True)
        await model.wait_begun(1)
        async with await Client.to(running) as leaves:
            await leaves.create(input="aaa", stream=True)
            await leaves.head()
            await trio.testing.wait_all_tasks_blocked()  # now it has its slot, and both take turns
            model.allow(6)
            await leaves.frame("response.output_text.delta")
        model.go()
        answer = await stays.answer()
        await running.app.wait_idle()
    assert answer.text == "Hello"


@pytest.mark.slow
async def test_disconnect_after_answer_is_ignored() -> None:
    async with served() as running:
        for _ in range(5):
            assert (await post(running, input="Hi", stream=True)).text == "Hi"
        await running.app.wait_idle()


async def test_disconnect_before_the_first_frames_are_sent_starts_nothing() -> None:
    """Over TLS, or if its socket is full, a client can leave while they wait to be sent."""
    body = encode(input="aaa", stream=True, store=False)
    messages: list[Mapping[str, Any]] = [
        {"type": "http.request", "body": body},
        {"type": "http.disconnect", "reason": "client disconnected"},
    ]
    scope = {"type": "http", "method": "POST", "path": "/v1/responses", "raw_path": b"/v1/responses"}
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    writes = trio.Event()

    async def receive() -> Mapping[str, Any]:
        message = messages.pop(0)
        if not messages:
            await writes.wait()
        return message

    async def send(message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.body" and not writes.is_set():
            writes.set()
            await trio.sleep_forever()

    model = PacedModel()
    async with served(model) as running:
        with trio.fail_after(2):
            await running.app({**scope, "headers": headers, "client": ("127.0.0.1", 1)}, receive, send)
        assert running.app.waiting == 0
    assert model.decoded == []
