"""Approvals of MCP calls: the answer that they ask for executes them, and nothing else does."""

import sys
from pathlib import Path
from typing import Any

import pytest

from engine.backends.scripted import ScriptedModel
from tests.server.api.tools.test_tools import HERMES
from tests.server.mcp.test_mcp import calculator, tool
from tests.support.helpers import Answer, Client, PacedModel, Running, encode, exchange, post, prompt_text, served


def replying(prompt: bytes) -> bytes:
    """Thank for thanks, and calculate otherwise."""
    return b"Welcome." if b"thanks" in prompt else calculator(prompt)


COUNT = b'<tool_call>\n{"name": "calc__count", "arguments": {}}\n</tool_call>'


def counting(prompt: bytes) -> bytes:
    """Call `count`, and end once the prompt has its output; summarize if asked to."""
    return b"Counted." if prompt[-1:].isdigit() or b"summar" in prompt else COUNT


async def approved(running: Running, mcp_url: str, **options: Any) -> dict[str, Any]:
    """Return the body of a request that approves the call that the model asks for."""
    asked = tool(mcp_url, require_approval="always")
    first = (await post(running, input="Go.", tools=[asked], **options)).json
    approval = {"type": "mcp_approval_response", "approval_request_id": first["output"][-1]["id"], "approve": True}
    return {"input": [{"role": "user", "content": "Go."}, *first["output"], approval], "tools": [asked]} | options


def output(answer: Answer) -> Any:
    """Return the output of the approved call, which begins the response."""
    return answer.json["output"][0]["output"]


async def count(running: Running, mcp_url: str) -> int:
    """Return the number of calls of `count`, with this one."""
    return int(output(await post(running, **await approved(running, mcp_url))))


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
    options = {"prompt_cache_options": {"prewarm": True}} if path == "/v1/responses" else {}
    async with served(ScriptedModel(counting), template=HERMES, allow_mcp=(mcp_url,)) as running:
        before = await count(running, mcp_url)
        body = await approved(running, mcp_url)
        answer = await exchange(running, "POST", path, encode(**body, **options))
        after = await count(running, mcp_url)
        executed = await post(running, **body)
    assert (answer.status, after, output(executed)) == (200, before + 1, str(after + 1))


async def test_compaction_trigger_executes_no_approved_call(mcp_url: str) -> None:
    async with served(ScriptedModel(counting, n_ctx=1 << 14), template=HERMES, allow_mcp=(mcp_url,)) as running:
        before = await count(running, mcp_url)
        body = await approved(running, mcp_url)
        answer = await post(running, input=[*body["input"], {"type": "compaction_trigger"}], tools=body["tools"])
        after = await count(running, mcp_url)
    assert (kinds(answer.json), after) == (["compaction"], before + 1)


async def test_approval_without_an_answer_is_refused(mcp_url: str) -> None:
    """An approval is never left out in silence."""
    items = [{"role": "user", "content": "Go."}, {"type": "mcp_approval_response", "approval_request_id": "mcpr_1"}]
    async with served(ScriptedModel(calculator), template=HERMES, allow_mcp=(mcp_url,)) as running:
        answer = await post(running, input=items, tools=[tool(mcp_url)])
    assert (answer.status, answer.json["error"]["param"]) == (400, "input[1]")


async def test_approval_without_its_tool_says_what_is_missing(mcp_url: str, tmp_path: Path) -> None:
    asked = tool(mcp_url, require_approval="always")
    async with served(ScriptedModel(counting), template=HERMES, allow_mcp=(mcp_url,), state=tmp_path) as running:
        first = (await post(running, input="Go.", tools=[asked])).json
        approval = {"type": "mcp_approval_response", "approval_request_id": first["output"][-1]["id"], "approve": True}
        answer = await post(running, input=[approval], previous_response_id=first["id"])
    assert answer.status == 400
    assert answer.json["error"]["message"] == (
        "`input` has no text for the model to answer; skipped: item mcp_approval_request, item mcp_approval_response. "
        "Send the MCP tool of the approval in `tools` again."
    )


async def test_approved_call_before_an_unknown_one_is_not_executed(mcp_url: str) -> None:
    async with served(ScriptedModel(counting), template=HERMES, allow_mcp=(mcp_url,)) as running:
        before = await count(running, mcp_url)
        body = await approved(running, mcp_url)
        unknown = body["input"][-1] | {"approval_request_id": "mcpr_1"}
        refused = await post(running, input=[*body["input"], unknown], tools=body["tools"])
        after = await count(running, mcp_url)
    assert (refused.status, after) == (400, before + 1)


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
    model = PacedModel(counting, n_slots=1)
    async with served(model, template=HERMES, allow_mcp=(mcp_url,), queue=1) as running:
        before = await count(running, mcp_url)
        body = await approved(running, mcp_url)
        model.hold()
        async with await Client.to(running) as busy, await Client.to(running) as waiting:
            for each in (busy, waiting):
                await each.create(input="Hi", stream=True)
                await each.head()
            refused = await post(running, **body)
            model.go()
            for each in (busy, waiting):
                await each.rest_of_stream()
        again = await post(running, **body)
    assert (refused.status, output(again)) == (503, str(before + 1))
