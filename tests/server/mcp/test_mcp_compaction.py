"""MCP tools in a conversation that is compacted first, and in a request for a summary."""

import pytest

from engine.backends.scripted import ScriptedModel
from tests.server.api.compaction.test_compaction import TALK, TRIGGER, managed
from tests.server.api.tools.test_tools import HERMES
from tests.server.mcp.test_mcp import ADD, tool
from tests.support.helpers import post, served, text

pytestmark = pytest.mark.slow


def calculator(prompt: bytes) -> bytes:
    """Summarize if asked to, then call `add`, and answer with its output."""
    if prompt.endswith(b"before or after it."):
        return b"They greeted."
    return b"It is 5." if prompt.endswith(b"5") else ADD.encode()


async def test_mcp_call_after_a_compaction_is_executed(mcp_url: str) -> None:
    async with served(ScriptedModel(calculator, n_ctx=1 << 14), template=HERMES, allow_mcp=(mcp_url,)) as running:
        answer = await post(running, input=TALK, tools=[tool(mcp_url)], stream=True, **managed(1))
    response = answer.events[-1]["response"]
    assert [item["type"] for item in response["output"]] == ["mcp_list_tools", "compaction", "mcp_call", "message"]
    assert (response["status"], text(response)) == ("completed", "It is 5.")


async def test_compaction_trigger_with_mcp_tools_gives_one_item(mcp_url: str) -> None:
    async with served(ScriptedModel(calculator, n_ctx=1 << 14), template=HERMES, allow_mcp=(mcp_url,)) as running:
        answer = await post(running, input=[*TALK, TRIGGER], tools=[tool(mcp_url)], stream=True)
    assert [item["type"] for item in answer.events[-1]["response"]["output"]] == ["compaction"]
