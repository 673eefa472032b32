"""MCP tools: the server lists and calls them, and the model goes on with their output."""

import json
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from engine.backends.scripted import ScriptedModel
from server.generation.recorder import Recorder
from server.mcp import client
from server.stream import StreamInput
from tests.server.api.tools.test_tools import HERMES, evaluated
from tests.support import wire
from tests.support.helpers import NAME, PATIENCE, get, official_client, post, served, types

ADD = '<tool_call>\n{"name": "calc__add", "arguments": {"a": 2, "b": 3}}\n</tool_call>'


def calculator(prompt: bytes) -> bytes:
    """Call `add`, and answer with its output once the prompt has it."""
    text = prompt.decode()
    if "did not approve" in text:
        return b"Then not."
    return b"It is 5." if text.endswith("5") else b"It broke." if "it broke" in text else ADD.encode()


def tool(url: str, **fields: Any) -> dict[str, Any]:
    return {"type": "mcp", "server_label": "calc", "server_url": url, "require_approval": "never"} | fields


async def test_certificates_are_read_once(mcp_url: str) -> None:
    """Each reading blocks the event loop for 30 ms."""
    for _ in range(2):
        assert (await client.McpClient(mcp_url, {}, PATIENCE).call("add", '{"a": 2, "b": 3}')).output == "5"
    assert client._certificates.cache_info().misses == 1


async def test_tokens_of_the_job_before_a_call_count_once(
    mcp_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    advance = Recorder.advance

    async def counting(recorder: Recorder, inputs: Sequence[StreamInput]) -> None:
        counts.append(running.app.generated_tokens)
        await advance(recorder, inputs)

    monkeypatch.setattr(Recorder, "advance", counting)
    async with served(ScriptedModel(calculator), template=HERMES, allow_mcp=(mcp_url,), state=tmp_path) as running:
        answer = await post(running, input="Go.", tools=[tool(mcp_url)])
    counts.append(answer.json["usage"]["output_tokens"])
    assert counts == sorted(counts)
    assert counts[-2] > 0


async def test_call_is_executed_and_the_model_goes_on(mcp_url: str, tmp_path: Path) -> None:
    async with served(ScriptedModel(calculator), template=HERMES, allow_mcp=(mcp_url,), state=tmp_path) as running:
        streamed = await post(running, input="2+3?", tools=[tool(mcp_url, headers={"x-key": "s3cret"})], stream=True)
        whole = await post(running, input="2+3?", tools=[tool(mcp_url)])
    response = streamed.events[-1]["response"]
    wire.check_response(whole.json)
    assert [item["type"] for item in response["output"]] == ["mcp_list_tools", "mcp_call", "message"]
    listed, call, message = response["output"]
    assert [each["name"] for each in listed["tools"]] == ["add", "fail", "sleep", "shout", "count", "slow_count"]
    assert (call["name"], json.loads(call["arguments"]), call["output"], call["status"]) == (
        "add", {"a": 2, "b": 3}, "5", "completed",
    )  # fmt: skip
    assert message["content"][0]["text"] == "It is 5."
    assert "s3cret" not in streamed.body.decode()
    assert response["tools"][0]["server_url"] == mcp_url
    assert [kind for kind in types(streamed.events) if "mcp" in kind and "delta" not in kind] == [
        "response.mcp_list_tools.in_progress",
        "response.mcp_list_tools.completed",
        "response.mcp_call.in_progress",
        "response.mcp_call_arguments.done",
        "response.mcp_call.completed",
    ]
    assert [item["type"] for item in whole.json["output"]] == ["mcp_list_tools", "mcp_call", "message"]


CALLS = {
    "fails": ('{"name": "calc__fail", "arguments": {}}', "mcp_tool_execution_error"),
    "answers with too much": ('{"name": "calc__shout", "arguments": {"size": 5000000}}', "http_error"),
}


# httpcore2 leaves a generator of its own open if an answer is not read to its end.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("call", "kind"), CALLS.values(), ids=CALLS)
async def test_call_that_fails_is_told_to_the_model(call: str, kind: str, mcp_url: str) -> None:
    def reply(prompt: bytes) -> bytes:
        return b"No." if b"rror" in prompt or b"larger" in prompt else f"<tool_call>\n{call}\n</tool_call>".encode()

    async with served(ScriptedModel(reply), template=HERMES, allow_mcp=(mcp_url,)) as running:
        streamed = await post(running, input="Go.", tools=[tool(mcp_url)], stream=True)
    _, failed, message = streamed.events[-1]["response"]["output"]
    assert (failed["status"], failed["error"]["type"]) == ("failed", kind)
    assert "response.mcp_call.failed" in types(streamed.events)
    assert (message["content"][0]["text"], streamed.events[-1]["type"]) == ("No.", "response.completed")


async def test_server_that_never_answers_ends_the_call(mcp_url: str) -> None:
    call = b'<tool_call>\n{"name": "calc__sleep", "arguments": {"seconds": 5}}\n</tool_call>'
    model = ScriptedModel(lambda prompt: b"No." if b"did not answer" in prompt else call)
    async with served(model, template=HERMES, allow_mcp=(mcp_url,), mcp_timeout_seconds=0.2) as running:
        answer = await post(running, input="Go.", tools=[tool(mcp_url)])
    assert (answer.json["output"][1]["error"]["code"], answer.text) == (504, "No.")


async def test_calls_end_at_the_limit(mcp_url: str) -> None:
    model = ScriptedModel(lambda prompt: ADD.encode())
    async with served(model, template=HERMES, allow_mcp=(mcp_url,)) as running:
        answer = await post(running, input="2+3?", tools=[tool(mcp_url)], max_tool_calls=2)
    assert [item["type"] for item in answer.json["output"]] == ["mcp_list_tools", "mcp_call", "mcp_call", "message"]
    assert (answer.json["status"], answer.json["max_tool_calls"]) == ("completed", 2)


async def test_usage_counts_all_jobs(mcp_url: str) -> None:
    async with served(ScriptedModel(calculator), template=HERMES, allow_mcp=(mcp_url,)) as running:
        answer = await post(running, input="2+3?", tools=[tool(mcp_url)])
    usage = answer.json["usage"]
    jobs = [len(ADD), len("It is 5.")]
    assert jobs[0] - 16 < usage["output_tokens"] - jobs[1] <= jobs[0] + 1, "the end of a call may be unwritten"
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


async def test_call_waits_for_approval_and_is_executed_then(mcp_url: str, tmp_path: Path) -> None:
    asked = tool(mcp_url, require_approval="always")
    async with served(ScriptedModel(calculator), template=HERMES, allow_mcp=(mcp_url,), state=tmp_path) as running:
        first = await post(running, input="2+3?", tools=[asked], stream=True)
        request = first.events[-1]["response"]["output"][-1]
        answer = {"type": "mcp_approval_response", "approval_request_id": request["id"], "approve": True}
        second = await post(
            running, input=[answer], tools=[asked], previous_response_id=first.events[-1]["response"]["id"], stream=True
        )
        third = await post(
            running, input="Sure?", tools=[asked], previous_response_id=second.events[-1]["response"]["id"]
        )
    assert (request["type"], request["name"], json.loads(request["arguments"])) == (
        "mcp_approval_request", "add", {"a": 2, "b": 3},
    )  # fmt: skip
    assert [item["type"] for item in second.events[-1]["response"]["output"]] == ["mcp_call", "message"]
    assert second.events[-1]["response"]["output"][0]["output"] == "5"
    assert second.events[-1]["response"]["output"][1]["content"][0]["text"] == "It is 5."
    assert "mcp_list_tools" not in [item["type"] for item in third.json["output"]], "the list is not asked for again"
    assert third.json.get("responsed", {}) == {}


async def test_denied_call_is_not_executed(mcp_url: str) -> None:
    asked = tool(mcp_url, require_approval={"never": {"tool_names": ["fail"]}})
    async with served(ScriptedModel(calculator), template=HERMES, allow_mcp=(mcp_url,)) as running:
        first = (await post(running, input="2+3?", tools=[asked])).json
        denial = {"type": "mcp_approval_response", "approval_request_id": first["output"][-1]["id"], "approve": False}
        history = [{"role": "user", "content": "2+3?"}, *first["output"], denial]
        second = (await post(running, input=history, tools=[asked])).json
        unknown = await post(running, input=[denial | {"approval_request_id": "mcpr_0"}], tools=[asked])
    assert [item["type"] for item in first["output"]] == ["mcp_list_tools", "mcp_approval_request"]
    assert [item["type"] for item in second["output"]] == ["message"]
    assert second["output"][0]["content"][0]["text"] == "Then not."
    assert (unknown.status, unknown.json["error"]["param"]) == (400, "input")


async def test_crash_after_a_call_leaves_the_call_in_the_response(mcp_url: str, tmp_path: Path) -> None:
    """The store as it is while the model reads the output is that of a server whose power is cut then."""
    copy = tmp_path / "copy"

    def reply(prompt: bytes) -> bytes:
        if prompt.endswith(b"5") and not copy.exists():
            shutil.copytree(tmp_path, copy, ignore=lambda *_: ["copy"])
        return calculator(prompt)

    async with served(ScriptedModel(reply), template=HERMES, allow_mcp=(mcp_url,), state=tmp_path) as running:
        whole = (await post(running, input="2+3?", tools=[tool(mcp_url)])).json
    async with served(ScriptedModel(calculator), template=HERMES, allow_mcp=(mcp_url,), state=copy) as running:
        cut = (await get(running, f"/v1/responses/{whole['id']}")).json
        after = await post(running, input="Go on.", tools=[tool(mcp_url)], previous_response_id=whole["id"])
    assert (cut["status"], [item["type"] for item in cut["output"]]) == ("failed", ["mcp_list_tools", "mcp_call"])
    assert cut["output"][1]["output"] == "5"
    assert after.status == 200


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"server_url": "http://127.0.0.1:9/mcp"}, 400, "tools[0].server_url"),
        ({"server_url": "http://169.254.169.254/latest"}, 400, "tools[0].server_url"),
        ({"server_url": None}, 400, "tools[0].server_url"),
        ({"connector_id": "connector_gmail"}, 400, "tools[0].connector_id"),
        ({"headers": {"Host": "a.test"}}, 400, "tools[0].headers"),
        ({"headers": {"x": "a\r\nb: c"}}, 400, "tools[0].headers"),
        ({"headers": {"x": "caf\u00e9"}}, 400, "tools[0].headers"),
        ({"server_label": "a b"}, 400, "tools[0].server_label"),
    ],
)
async def test_server_that_the_operator_has_not_allowed_is_refused(
    fields: dict[str, Any], status: int, param: str, mcp_url: str
) -> None:
    async with served(ScriptedModel(calculator), template=HERMES, allow_mcp=(mcp_url,)) as running:
        answer = await post(running, input="Go.", tools=[tool(mcp_url) | fields])
    assert (answer.status, answer.json["error"]["param"]) == (status, param)


@pytest.mark.slow
async def test_server_that_is_down_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/mcp"
    async with served(ScriptedModel(calculator), template=HERMES, allow_mcp=(url,)) as running:
        answer = await post(running, input="Go.", tools=[tool(url)])
    assert (answer.status, answer.json["error"]["type"]) == (424, "external_connector_error")


async def test_connector_is_named_by_the_operator(mcp_url: str) -> None:
    async with served(ScriptedModel(calculator), template=HERMES, mcp_connectors=(f"sums={mcp_url}",)) as running:
        wanted = {"type": "mcp", "server_label": "calc", "connector_id": "sums", "require_approval": "never"}
        answer = await post(running, input="2+3?", tools=[wanted])
    assert answer.text == "It is 5."
    assert mcp_url not in answer.body.decode()


async def test_only_allowed_tools_are_offered(mcp_url: str) -> None:
    async with served(ScriptedModel(lambda prompt: b"Ok."), template=HERMES, allow_mcp=(mcp_url,)) as running:
        await post(running, input="Go.", tools=[tool(mcp_url, allowed_tools=["fail"])])
        prompt = evaluated(running).decode()
    assert "calc__fail" in prompt
    assert "calc__add" not in prompt


async def test_members_without_effect_are_named(mcp_url: str) -> None:
    unused = {"defer_loading": True, "allowed_callers": ["programmatic"]}
    usual = {"defer_loading": False, "allowed_callers": ["direct"]}
    async with served(ScriptedModel(calculator), template=HERMES, allow_mcp=(mcp_url,)) as running:
        named = await post(running, input="2+3?", tools=[tool(mcp_url, **unused)])
        plain = await post(running, input="2+3?", tools=[tool(mcp_url, **usual)])
    assert named.json["responsed"]["skipped"] == ["tool mcp.defer_loading", "tool mcp.allowed_callers"]
    assert "responsed" not in plain.json


async def test_redirect_is_not_followed() -> None:
    """A server that the operator allows must not send us to another one."""
    asked: list[bytes] = []

    async def redirect(stream: trio.SocketStream) -> None:
        asked.append(await stream.receive_some())
        await stream.send_all(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/secret\r\nContent-Length: 0\r\n\r\n")

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, redirect, 0)
        url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/mcp"
        async with served(ScriptedModel(calculator), template=HERMES, allow_mcp=(url,)) as running:
            answer = await post(running, input="Go.", tools=[tool(url)])
        nursery.cancel_scope.cancel()
    assert (answer.status, bool(asked)) == (424, True)


def all_bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_secrets_reach_neither_store_nor_log(
    mcp_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    secret = tool(mcp_url, headers={"x-key": "s3cret"}, authorization="t0ken")
    async with served(ScriptedModel(calculator), template=HERMES, allow_mcp=(mcp_url,), state=tmp_path) as running:
        answer = await post(running, input="2+3?", tools=[secret])
    stored = all_bytes(tmp_path)
    for word in ("s3cret", "t0ken"):
        assert word not in answer.body.decode() + caplog.text
        assert word.encode() not in stored


def by_the_official_client(url: str, mcp: str) -> list[str]:
    with (
        official_client(url) as client_,
        client_.responses.stream(
            model=NAME,
            input="2+3?",
            tools=[{"type": "mcp", "server_label": "calc", "server_url": mcp, "require_approval": "never"}],
        ) as stream,
    ):
        response = stream.get_final_response()
    assert response.output_text == "It is 5."
    return [item.type for item in response.output]


async def test_official_client_reads_the_calls(mcp_url: str) -> None:
    async with served(ScriptedModel(calculator), template=HERMES, allow_mcp=(mcp_url,)) as running:
        found = await trio.to_thread.run_sync(by_the_official_client, running.url, mcp_url)
    assert found == ["mcp_list_tools", "mcp_call", "message"]
