"""Answers of several stages before an upstream: summaries, truncation, MCP calls, background."""

from pathlib import Path
from typing import Any

from tests.server.upstream.scripted_upstream import HEAD, call, end, fronted, plays, says
from tests.support.helpers import get, post

LONG: list[dict[str, str]] = [
    {"role": "user", "content": "word " * 900},
    {"role": "assistant", "content": "ok " * 400},
    {"role": "user", "content": "And now?"},
]


async def test_long_conversation_is_compacted_before_the_answer() -> None:
    management = [{"type": "compaction", "compact_threshold": 1000}]
    async with fronted(says("They spoke."), says("Answer.")) as front:
        answer = await post(front, model="m", input=LONG, context_management=management, stream=True)
    response = answer.events[-1]["response"]
    assert [item["type"] for item in response["output"]] == ["compaction", "message"]
    first, second = (each.body["messages"] for each in front.asked)
    assert [message["role"] for message in first] == ["user", "assistant", "user"]
    assert "They spoke." in second[-2]["content"]
    assert second[-1] == {"role": "user", "content": "And now?"}


async def test_truncation_drops_the_oldest_turns_by_an_estimate() -> None:
    turns: list[dict[str, str]] = []
    for number in range(20):
        turns += [{"role": "user", "content": f"{number} " + "word " * 50}, {"role": "assistant", "content": "ok"}]
    async with fronted(says("Answer."), n_ctx=500) as front:
        response = (await post(front, model="m", input=[*turns, LONG[-1]], truncation="auto")).json
    sent = front.asked[0].body["messages"]
    assert response["status"] == "completed"
    assert sent == [*turns, LONG[-1]][-len(sent) :]
    assert sum(len(message["content"]) // 4 + 6 for message in sent) <= 500


async def test_mcp_calls_are_executed_here(mcp_url: str) -> None:
    calls = plays(HEAD, call(0, "calc__add", '{"a":2,"b":3}'), end("tool_calls"))
    tool: dict[str, Any] = {"type": "mcp", "server_label": "calc", "server_url": mcp_url, "require_approval": "never"}
    async with fronted(calls, says("Five."), allow_mcp=(mcp_url,)) as front:
        answer = await post(front, model="m", input="2 + 3?", tools=[tool], stream=True)
    response = answer.events[-1]["response"]
    assert [item["type"] for item in response["output"]] == ["mcp_list_tools", "mcp_call", "message"]
    assert response["output"][1]["output"] == "5"
    assert response["usage"]["input_tokens"] == 18, "the usage of both requests"
    assert front.asked[1].body["messages"][-1]["content"] == "5"


async def test_background_response_is_stored(tmp_path: Path) -> None:
    async with fronted(says("Done."), state=tmp_path) as front:
        id_ = (await post(front, model="m", input="Hi", background=True)).json["id"]
        followed = (await get(front, f"/v1/responses/{id_}?stream=true")).events[-1]["response"]
        found = await get(front, f"/v1/responses/{id_}")
    assert (followed["status"], found.text) == ("completed", "Done.")
