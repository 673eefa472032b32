"""Limits of a response that calls MCP tools: they apply to all its jobs together."""

import json

import pytest

from engine.backends.scripted import ScriptedModel
from server.mcp import client
from server.protocol import sse
from tests.server.api.tools.test_tools import HERMES
from tests.server.mcp.test_mcp import ADD, tool
from tests.support.helpers import post, served


async def test_output_limit_counts_the_tokens_of_all_jobs(mcp_url: str) -> None:
    model = ScriptedModel(lambda prompt: ADD.encode())
    async with served(model, template=HERMES, allow_mcp=(mcp_url,)) as running:
        answer = (await post(running, input="2+3?", tools=[tool(mcp_url)], max_output_tokens=100)).json
    assert answer["usage"]["output_tokens"] == 100
    assert (answer["status"], answer["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})


async def test_server_with_too_many_tools_is_refused(mcp_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools are never left out in silence."""
    monkeypatch.setattr(client, "MAX_TOOLS", 4)
    async with served(ScriptedModel(lambda prompt: b"Ok."), template=HERMES, allow_mcp=(mcp_url,)) as running:
        answer = await post(running, input="Go.", tools=[tool(mcp_url)])
    assert (answer.status, answer.json["error"]["param"]) == (424, "tools[0]")
    assert "more than 4 tools" in answer.json["error"]["message"]


async def test_output_beyond_the_context_is_told_to_the_model(mcp_url: str) -> None:
    call = json.dumps({"name": "calc__shout", "arguments": {"size": 50_000}})
    reply = f"<tool_call>\n{call}\n</tool_call>".encode()
    model = ScriptedModel(lambda prompt: b"Too much." if b"too long for" in prompt else reply)
    async with served(model, template=HERMES, allow_mcp=(mcp_url,)) as running:
        answer = await post(running, input="Go.", tools=[tool(mcp_url)], stream=True)
    _, shout, message = answer.events[-1]["response"]["output"]
    assert (shout["status"], shout["output"], shout["error"]["code"]) == ("failed", None, 413)
    assert message["content"][0]["text"] == "Too much."


async def test_stream_shows_signs_of_life_during_a_call(mcp_url: str) -> None:
    """A proxy closes a stream that is silent for a minute, and a call may take two."""
    call = b'<tool_call>\n{"name": "calc__sleep", "arguments": {"seconds": 0.2}}\n</tool_call>'
    model = ScriptedModel(lambda prompt: b"Up." if b"awake" in prompt else call)
    async with served(model, template=HERMES, allow_mcp=(mcp_url,), heartbeat_seconds=0.02) as running:
        answer = await post(running, input="Sleep.", tools=[tool(mcp_url)], stream=True)
    _, called = answer.body.split(b"event: response.mcp_call_arguments.done")
    assert sse.PING in called.split(b"event: response.mcp_call.completed")[0]
