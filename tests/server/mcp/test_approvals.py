"""Approvals of MCP calls: each approved call is executed once, by an answer."""

import sys
from pathlib import Path
from typing import Any

import pytest

from engine.backends.scripted import ScriptedModel
from tests.server.api.tools.test_tools import HERMES
from tests.server.mcp.test_mcp import calculator, mcp_url, tool
from tests.support.helpers import Client, PacedModel, encode, exchange, post, prompt_text, served

__all__ = ["mcp_url"]


def replying(prompt: bytes) -> bytes:
    """Thank for thanks, and calculate otherwise."""
    return b"Welcome." if b"thanks" in prompt else calculator(prompt)


def kinds(answer: dict[str, Any]) -> list[str]:
    return [item["type"] for item in answer["output"]]


async def test_approval_sent_again_with_the_conversation_executes_nothing(mcp_url: str) -> None:
    asked = tool(mcp_url, require_approval="always")
    async with served(ScriptedModel(replying), template=HERMES, allow_mcp=(mcp_url,)) as running:
        first = (await post(running, input="2+3?", tools=[asked])).json
        approval = {"type": "mcp_approval_response", "approval_request_id": first["output"][-1]["id"], "approve": True}
        history: list[Any] = [{"role": "user", "content": "2+3?"}, *first["output"], approval]
        second = (await post(running, input=history, tools=[asked])).json
        history += [*second["output"], {"role": "user", "content": "thanks"}]
        third = (await post(running, input=history, tools=[asked])).json
        prompt = prompt_text(running.model)
    assert (kinds(second), kinds(third)) == (["mcp_call", "message"], ["message"])
    assert second["output"][0]["approval_request_id"] == first["output"][-1]["id"]
    assert prompt.count('"name": "calc__add"') == 1


async def test_denied_call_stays_in_its_place(mcp_url: str, tmp_path: Path) -> None:
    asked = tool(mcp_url, require_approval="always")
    async with served(ScriptedModel(replying), template=HERMES, allow_mcp=(mcp_url,), state=tmp_path) as running:
        first = (await post(running, input="2+3?", tools=[asked])).json
        denial = {"type": "mcp_approval_response", "approval_request_id": first["output"][-1]["id"], "approve": False}
        second = (await post(running, input=[denial], tools=[asked], previous_response_id=first["id"])).json
        await post(running, input="thanks", tools=[asked], previous_response_id=second["id"])
        prompt = prompt_text(running.model)
    assert 0 < prompt.index("did not approve") < prompt.index("Then not.") < prompt.index("thanks")


@pytest.mark.parametrize("path", ["/v1/responses/input_tokens", "/v1/responses/compact", "/v1/responses"])
async def test_approved_call_without_an_answer_is_not_executed(path: str, mcp_url: str) -> None:
    """Nobody counts tokens, compacts a conversation or warms the cache to have a call executed."""
    call = b'<tool_call>\n{"name": "calc__count", "arguments": {}}\n</tool_call>'
    model = ScriptedModel(lambda prompt: b"Counted." if b"tool_response" in prompt or b"summar" in prompt else call)
    asked = tool(mcp_url, require_approval="always")
    options = {"prompt_cache_options": {"prewarm": True}} if path == "/v1/responses" else {}
    async with served(model, template=HERMES, allow_mcp=(mcp_url,)) as running:
        first = (await post(running, input="Count.", tools=[asked])).json
        approval = {"type": "mcp_approval_response", "approval_request_id": first["output"][-1]["id"], "approve": True}
        body = {"input": [{"role": "user", "content": "Count."}, *first["output"], approval], "tools": [asked]}
        before = (await post(running, **body)).json["output"][0]["output"]
        answer = await exchange(running, "POST", path, encode(**body, **options))
        after = (await post(running, **body)).json["output"][0]["output"]
    assert answer.status == 200
    assert int(after) == int(before) + 1


async def test_approval_without_an_answer_is_refused(mcp_url: str) -> None:
    """An approval is never left out in silence."""
    items = [{"role": "user", "content": "Go."}, {"type": "mcp_approval_response", "approval_request_id": "mcpr_1"}]
    async with served(ScriptedModel(calculator), template=HERMES, allow_mcp=(mcp_url,)) as running:
        answer = await post(running, input=items, tools=[tool(mcp_url)])
    assert (answer.status, answer.json["error"]["param"]) == (400, "input[1]")


async def test_approved_call_before_an_unknown_one_is_not_executed(mcp_url: str) -> None:
    call = b'<tool_call>\n{"name": "calc__count", "arguments": {}}\n</tool_call>'
    model = ScriptedModel(lambda prompt: b"Counted." if b"tool_response" in prompt else call)
    asked = tool(mcp_url, require_approval="always")
    async with served(model, template=HERMES, allow_mcp=(mcp_url,)) as running:
        first = (await post(running, input="Count.", tools=[asked])).json
        approval = {"type": "mcp_approval_response", "approval_request_id": first["output"][-1]["id"], "approve": True}
        history = [{"role": "user", "content": "Count."}, *first["output"], approval]
        before = (await post(running, input=history, tools=[asked])).json["output"][0]["output"]
        unknown = approval | {"approval_request_id": "mcpr_1"}
        refused = await post(running, input=[*history, unknown], tools=[asked])
        after = (await post(running, input=history, tools=[asked])).json["output"][0]["output"]
    assert (refused.status, int(after)) == (400, int(before) + 1)


async def test_address_that_is_none_is_refused(mcp_url: str) -> None:
    async with served(ScriptedModel(calculator), template=HERMES, allow_mcp=(mcp_url,)) as running:
        answer = await post(running, input="Go.", tools=[tool("http://[")])
    assert (answer.status, answer.json["error"]["param"]) == (400, "tools[0].server_url")


async def test_server_without_the_package_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    url = "http://127.0.0.1:9/mcp"
    async with served(ScriptedModel(calculator), template=HERMES, allow_mcp=(url,)) as running:
        answer = await post(running, input="Go.", tools=[tool(url)])
    assert "pip install 'responsed[mcp]'" in answer.json["error"]["message"]


async def test_approved_call_of_a_refused_request_is_not_executed(mcp_url: str) -> None:
    """The queue of its lane is full, and that of the other lane is not: the client tries again later."""
    call = b'<tool_call>\n{"name": "calc__count", "arguments": {}}\n</tool_call>'
    model = PacedModel(lambda prompt: b"Counted." if b"tool_response" in prompt else call, n_slots=1)
    asked = tool(mcp_url, require_approval="always")
    async with served(model, template=HERMES, allow_mcp=(mcp_url,), queue=1) as running:
        first = (await post(running, input="Count.", tools=[asked])).json
        approval = {"type": "mcp_approval_response", "approval_request_id": first["output"][-1]["id"], "approve": True}
        body = {"input": [{"role": "user", "content": "Count."}, *first["output"], approval], "tools": [asked]}
        before = (await post(running, **body)).json["output"][0]["output"]
        model.hold()
        async with await Client.to(running) as busy, await Client.to(running) as waiting:
            for each in (busy, waiting):
                await each.create(input="Hi", stream=True)
                await each.head()
            refused = await post(running, **body)
            model.go()
            for each in (busy, waiting):
                await each.rest_of_stream()
        after = (await post(running, **body)).json["output"][0]["output"]
    assert refused.status == 503
    assert int(after) == int(before) + 1
