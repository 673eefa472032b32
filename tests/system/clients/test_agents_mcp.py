"""The Agents SDK has this server call the tools of an MCP server."""

import json
from typing import Any

import openai
import pytest
from agents import Agent, HostedMCPTool, MCPToolApprovalRequest
from openai.types.responses.tool_param import Mcp

from engine.backends.scripted import ScriptedModel
from tests.server.api.tools.test_tools import HERMES
from tests.server.mcp.test_mcp import calculator
from tests.server.upstream.fronts import Served
from tests.system.clients.test_agents import WAYS, Run, runs

pytestmark = pytest.mark.slow


def hosted(url: str, approval: Any, **options: Any) -> HostedMCPTool:
    config = Mcp(type="mcp", server_label="calc", server_url=url, require_approval=approval)
    return HostedMCPTool(tool_config=config, **options)


@WAYS
async def test_agents_sdk_gets_the_answer_of_a_hosted_mcp_tool(served_alone: Served, run: Run, mcp_url: str) -> None:
    agent = Agent("Calculator", tools=[hosted(mcp_url, "never")])
    async with served_alone(ScriptedModel(calculator), template=HERMES, allow_mcp=(mcp_url,)) as running:
        result = await runs(running.url, run, agent, "2+3?")
    assert result.final_output == "It is 5."
    assert [item.type for item in result.new_items] == ["mcp_list_tools_item", "tool_call_item", "message_output_item"]


@WAYS
@pytest.mark.parametrize(("approves", "output"), [(True, "It is 5."), (False, "Then not.")])
async def test_agents_sdk_approves_or_denies_a_call(
    served: Served, run: Run, approves: bool, output: str, mcp_url: str
) -> None:
    asked: list[tuple[str, Any]] = []

    def decide(request: MCPToolApprovalRequest) -> Any:
        asked.append((request.data.name, json.loads(request.data.arguments)))
        return {"approve": approves}

    agent = Agent("Calculator", tools=[hosted(mcp_url, "always", on_approval_request=decide)])
    async with served(ScriptedModel(calculator), template=HERMES, allow_mcp=(mcp_url,)) as running:
        result = await runs(running.url, run, agent, "2+3?")
    assert asked == [("add", {"a": 2, "b": 3})]
    assert result.final_output == output


@WAYS
async def test_agents_sdk_gets_the_reason_of_a_failed_list(served_alone: Served, run: Run) -> None:
    agent = Agent("Calculator", tools=[hosted("http://127.0.0.1:1/mcp", "never")])
    async with served_alone(
        ScriptedModel(calculator), template=HERMES, allow_mcp=("http://127.0.0.1:1/mcp",)
    ) as running:
        with pytest.raises(openai.APIError, match="Error retrieving tool list from MCP server: 'calc'"):
            await runs(running.url, run, agent, "2+3?")
