"""The Agents SDK with its WebSocket model: the tool loop on one connection, without a store."""

import asyncio
import logging
import re
from functools import partial
from typing import Any

import pytest
import trio
from agents import Agent, OpenAIResponsesWSModel, RunConfig

from tests.server.api.tools.test_tools import HERMES
from tests.server.upstream.fronts import Served
from tests.support.helpers import NAME, PATIENCE, official_async_client
from tests.system.clients.test_agents import WAYS, Desk, Run, forecaster, scripted

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("how", [{}, {"auto_previous_response_id": True}], ids=["replayed", "chained"])
@WAYS
async def test_agent_over_websocket_calls_its_tools(
    served: Served, run: Run, how: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "responsed.http")
    desk = Desk()
    agent = Agent("Weather", instructions="Help.", tools=[desk.tool])

    async def main(url: str) -> Any:
        async with official_async_client(url, timeout=PATIENCE) as client:
            model = OpenAIResponsesWSModel(NAME, client)
            config = RunConfig(model, tracing_disabled=True)
            result = await run(agent, "Rome and Oslo?", run_config=config, **how)
            await model.close()
            return result

    async with served(scripted(forecaster), template=HERMES) as running:
        result = await trio.to_thread.run_sync(partial(asyncio.run, main(running.url)))
        await running.app.wait_idle()
    assert sorted(desk.asked) == [("Oslo", 1), ("Rome", 3)]
    assert result.final_output == "It is sunny in both."
    requests = re.findall(r" req_\w+ \S+ ([A-Z]+ /v1/responses \d+) ", caplog.text)
    assert requests == [*["WEBSOCKET /v1/responses 200"] * 2, "GET /v1/responses 101"]
