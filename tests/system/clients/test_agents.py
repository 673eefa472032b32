"""The Agents SDK against this server: its tool loop, streamed and not, handing over, and an output of a type."""

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pydantic
import pytest
import trio
from agents import Agent, ModelSettings, OpenAIResponsesModel, RunConfig, Runner, function_tool
from agents.result import RunResultBase

from engine.backends.scripted import Reply, ScriptedModel
from tests.server.api.tools.test_tools import HERMES, call
from tests.server.upstream.fronts import Served
from tests.support.helpers import NAME, PATIENCE, official_async_client, statuses
from tests.support.processes import Daemon, serving

pytestmark = pytest.mark.slow

Run: TypeAlias = Callable[..., Awaitable[RunResultBase]]


async def at_once(agent: Agent, question: str, **how: Any) -> RunResultBase:
    return await Runner.run(agent, question, **how)


async def streamed(agent: Agent, question: str, **how: Any) -> RunResultBase:
    result = Runner.run_streamed(agent, question, **how)
    kinds = [event.data.type async for event in result.stream_events() if event.type == "raw_response_event"]
    assert kinds.count("response.completed") == len(result.raw_responses)
    return result


WAYS = pytest.mark.parametrize("run", [at_once, streamed])


async def runs(url: str, run: Run, agent: Agent, question: str, model: str = NAME, **how: Any) -> RunResultBase:
    """The SDK is asyncio's: it gets a loop of its own, in a thread."""

    async def main() -> RunResultBase:
        async with official_async_client(url, timeout=PATIENCE) as client:
            config = RunConfig(OpenAIResponsesModel(model, client), tracing_disabled=True)
            return await run(agent, question, run_config=config, **how)

    return await trio.to_thread.run_sync(partial(asyncio.run, main()))


def scripted(reply: Reply) -> ScriptedModel:
    return ScriptedModel(reply, n_ctx=1 << 14)


class Desk:
    """A tool for forecasts, and a record of its calls."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.tool = function_tool(self.forecast)

    async def forecast(self, city: str, days: int = 1) -> str:
        """The weather to come."""
        self.asked.append((city, days))
        return f"{city}: sunny for {days}"


def forecast(city: str, days: int) -> str:
    return call("forecast", json.dumps({"city": city, "days": days}))


def forecaster(message: bytes) -> bytes:
    """It asks for both at once."""
    outputs = b"Rome: sunny for 3" in message and b"Oslo: sunny for 1" in message
    return b"It is sunny in both." if outputs else (forecast("Rome", 3) + forecast("Oslo", 1)).encode()


@pytest.mark.parametrize("how", [{}, {"auto_previous_response_id": True}], ids=["replayed", "chained"])
@WAYS
async def test_agent_calls_its_tools_and_reads_their_outputs(
    served: Served, run: Run, how: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "responsed.http")
    desk = Desk()
    agent = Agent("Weather", instructions="Help.", tools=[desk.tool])
    async with served(scripted(forecaster), template=HERMES, state=tmp_path) as running:
        result = await runs(running.url, run, agent, "Rome and Oslo?", **how)
    assert sorted(desk.asked) == [("Oslo", 1), ("Rome", 3)]
    assert result.final_output == "It is sunny in both."
    assert statuses(caplog.text) == [200] * 2


def clerk(message: bytes) -> bytes:
    """It hands over, then asks."""
    if b"sunny" in message:
        return b"It is sunny."
    return (forecast("Rome", 2) if b"transfer_to_weather" in message else call("transfer_to_weather", "{}")).encode()


@WAYS
async def test_agent_hands_over_to_another(served_alone: Served, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "responsed.http")
    desk = Desk()
    weather = Agent("weather", instructions="Forecast.", tools=[desk.tool])
    async with served_alone(scripted(clerk), template=HERMES) as running:
        result = await runs(running.url, run, Agent("clerk", handoffs=[weather]), "Rome?")
    assert (desk.asked, result.final_output, result.last_agent) == ([("Rome", 2)], "It is sunny.", weather)
    assert statuses(caplog.text) == [200] * 3


class CityDays(pydantic.BaseModel):
    city: str
    days: list[int]


@WAYS
async def test_agent_output_has_the_wanted_type(served_alone: Served, run: Run) -> None:
    """The model has something else in mind, and closes what is open when it can."""
    async with served_alone(scripted(lambda message: b'{"city": "Rome", "days": [1, 2]} is it.')) as running:
        result = await runs(running.url, run, Agent("Picks", output_type=CityDays), "Where?")
    assert result.final_output == CityDays(city="Rome", days=[1, 2])


@WAYS
async def test_agent_calls_before_output_of_the_wanted_type(served_alone: Served, run: Run) -> None:
    def picker(message: bytes) -> bytes:
        return b'{"city": "Rome", "days": [3]}' if b"sunny" in message else forecast("Rome", 3).encode()

    desk = Desk()
    async with served_alone(scripted(picker), template=HERMES) as running:
        result = await runs(running.url, run, Agent("Picks", tools=[desk.tool], output_type=CityDays), "Where?")
    assert (desk.asked, result.final_output) == ([("Rome", 3)], CityDays(city="Rome", days=[3]))


HELPFUL = "You are a helpful assistant."


@pytest.fixture(scope="module")
def daemon(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    flags = ("--model", str(smollm2), "--alias", NAME, "--context", "2048", "--slots", "1")
    with serving(tmp_path_factory.mktemp("agents"), *flags) as daemon:
        yield daemon


async def test_agent_with_real_model_calls_the_demanded_tool(daemon: Daemon) -> None:
    desk = Desk()
    agent = Agent(
        "Weather",
        instructions=HELPFUL,
        tools=[desk.tool],
        model_settings=ModelSettings(temperature=0, tool_choice="required"),
        tool_use_behavior="stop_on_first_tool",
    )
    result = await runs(daemon.url, at_once, agent, "What will the weather be in Rome?")
    ((city, days),) = desk.asked
    assert result.final_output == f"{city}: sunny for {days}"


async def test_agent_with_real_model_ends_its_runs(daemon: Daemon) -> None:
    """The question has a short answer: an incomplete response would raise an exception in the SDK."""
    settings = ModelSettings(temperature=0)
    agent = Agent("Guide", instructions=HELPFUL, tools=[Desk().tool], model_settings=settings)
    results = [await runs(daemon.url, run, agent, "What is the capital of France?") for run in (at_once, streamed)]
    assert all(result.final_output for result in results)
    assert set(re.findall(r" (?:whole|stream) (\w+)", daemon.log.read_text())) == {"completed"}
