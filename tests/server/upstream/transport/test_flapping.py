"""An upstream that comes and goes under load, beside a steady one."""

from collections import Counter
from contextlib import suppress

import pytest
import trio

from tests.server.upstream.scripted_upstream import HEAD, Asked, ScriptedUpstream, delta, end
from tests.server.upstream.test_presence import answers, free_port, front, models, serving, upstream
from tests.support.helpers import get, post

pytestmark = pytest.mark.slow

SECONDS = 2.0
CLIENTS = 20
TERMINAL = ("response.completed", "response.failed", "response.incomplete")


async def slowly(stream: trio.SocketStream, asked: Asked) -> None:
    if not asked.body.get("stream"):
        await answers()(stream, asked)  # to the probe
        return
    await stream.send_all(HEAD)
    for _ in range(5):
        await stream.send_all(delta(content="x"))
        await trio.sleep(0.01)
    await stream.send_all(end())


async def flap(port: int) -> None:
    async with trio.open_nursery() as nursery:
        while True:
            scope: trio.CancelScope = await nursery.start(serving, ScriptedUpstream([slowly], models(), port))
            await trio.sleep(0.15)
            scope.cancel()
            await trio.sleep(0.15)


async def test_each_answer_has_one_end_while_an_upstream_comes_and_goes(caplog: pytest.LogCaptureFixture) -> None:
    ends, port = Counter[str](), free_port()

    async def client(number: int) -> None:
        for turn in range(10_000):
            answer = await post(server, model="m", input="Hi", stream=True, prompt_cache_key=f"{number} {turn}")
            (kind,) = [each["type"] for each in answer.events if each.get("type") in TERMINAL]
            ends[kind] += 1
            if kind == "response.completed":
                assert answer.text == "xxxxx"

    async with upstream(slowly) as steady, trio.open_nursery() as nursery:
        nursery.start_soon(flap, port)
        async with front(steady.port, port) as server:
            with suppress(trio.TooSlowError), trio.fail_after(SECONDS):
                async with trio.open_nursery() as clients:
                    for number in range(CLIENTS):
                        clients.start_soon(client, number)
            await trio.sleep(0.2)  # the last requests end
            found = (await get(server, "/status")).json["upstreams"]
            nursery.cancel_scope.cancel()
    assert ends["response.completed"]
    assert [each["running"] for each in found] == [0, 0]
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
