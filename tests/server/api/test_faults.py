"""Faults of the engine and of the server: reported, logged, and without effect on other requests."""

import itertools
import logging

import numpy as np
import pytest
import trio
import trio.testing

from engine.backends.scripted import Reply, ScriptedModel
from engine.model import FloatArray, ModelError
from tests.server.api.test_app import OPENING, server_error
from tests.support.helpers import (
    PATIENCE,
    Answer,
    Client,
    PacedModel,
    encode,
    exchange,
    get,
    post,
    served,
    types,
)


class Fatal(BaseException):
    """Exception that ends the inference thread."""


def fails_at(call: int, exception: BaseException) -> Reply:
    """Return a script that answers `die` until call `number`, which raises; it echoes other messages."""
    calls = itertools.count(1)

    def reply(message: bytes) -> bytes:
        if message.startswith(b"die") and next(calls) == call:
            raise exception
        return message

    return reply


@pytest.mark.parametrize("call", [1, 3])
async def test_engine_fault_in_stream_is_reported_and_server_continues(call: int) -> None:
    async with served(ScriptedModel(fails_at(call, ModelError("the model broke")))) as running:
        answer = await post(running, input="die", stream=True)
        assert (await post(running, input="Hi")).text == "Hi"
    begun = ["response.output_item.added", "response.content_part.added", *["response.output_text.delta"] * 2]
    begun += ["response.output_text.done", "response.content_part.done", "response.output_item.done"]
    assert types(answer.events) == [*OPENING, *(begun if call == 3 else []), "error", "response.failed"]
    fault, failed = answer.events[-2:]
    assert fault["error"] == server_error("the model broke")["error"]
    assert failed["response"]["error"] == {"code": "server_error", "message": "the model broke"}


@pytest.mark.parametrize("call", [1, 3])
async def test_engine_fault_without_stream_is_an_error(call: int) -> None:
    async with served(ScriptedModel(fails_at(call, ModelError("the model broke")))) as running:
        answer = await post(running, input="die")
        assert (await post(running, input="Hi")).text == "Hi"
    assert (answer.status, answer.json) == (500, server_error("the model broke"))


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("call", [1, 3])
async def test_dead_engine_thread_ends_all_requests_and_the_daemon(call: int, stream: bool) -> None:
    answers: list[Answer] = []

    async def listen(client: Client) -> None:
        answers.append(await client.answer())

    model = PacedModel(fails_at(call, Fatal("boom")))
    with pytest.RaisesGroup(pytest.RaisesExc(Fatal, match="boom"), flatten_subgroups=True):
        async with served(model) as running, await Client.to(running) as dies, await Client.to(running) as other:
            model.hold()
            await other.create(input="other" * 100, stream=True)
            await model.wait_begun(1)
            await dies.create(input="die", stream=stream)
            await trio.testing.wait_all_tasks_blocked()
            with trio.CancelScope(shield=True), trio.fail_after(PATIENCE):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(listen, dies)
                    nursery.start_soon(listen, other)
                    model.go()
    whole = [answer for answer in answers if answer.headers["content-type"] == "application/json"]
    assert [(answer.status, set(answer.json)) for answer in whole] == ([] if stream else [(500, {"error"})])
    for answer in answers:
        if answer not in whole:
            assert answer.events[-1]["type"] == "response.failed"
    assert len(answers) == 2


class ForeignModel(ScriptedModel):
    """Model whose tokens are not in the vocabulary, as an example of an unexpected exception."""

    def logits(self, slot: int, row: int = 0) -> FloatArray:
        logits = np.zeros(300, np.float32)
        logits[299] = 20
        return logits


async def test_unexpected_exception_is_answered_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with served(ForeignModel()) as running:
        streamed = await post(running, input="Hi", stream=True)
        whole = await post(running, input="Hi")
        assert (await get(running, "/health")).status == 200
    message = "Internal error; see the server log."
    assert types(streamed.events) == [*OPENING, "error", "response.failed"]
    assert streamed.events[-1]["response"]["error"] == {"code": "server_error", "message": message}
    assert (whole.status, whole.json) == (500, server_error(message))
    assert [record.levelname for record in caplog.records if record.exc_info] == ["ERROR"] * 2


async def test_wait_idle_by_several_tasks_returns() -> None:
    model = PacedModel()
    async with served(model) as running, await Client.to(running) as client:
        model.hold()
        await client.create(input="Hi")
        await model.wait_begun(1)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(running.app.wait_idle)
            await trio.testing.wait_all_tasks_blocked()
            model.go()
        assert (await client.answer()).text == "Hi"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions"])
async def test_unknown_field_is_named_in_response(path: str, stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "responsed.http")
    content = {"input": "Hi"} if path == "/v1/responses" else {"messages": [{"role": "user", "content": "Hi"}]}
    async with served() as running:
        for _ in range(2):
            body = encode(**content, temprature=0.1, stream=stream)
            answer = await exchange(running, "POST", path, body)
            assert answer.status == 200
            if path == "/v1/responses":
                seen = [each["response"] for each in answer.events if "response" in each] if stream else [answer.json]
                assert [each["responsed"] for each in seen] == [{"skipped": ["temprature"]}] * len(seen)
        clean = (await post(running, input="Hi")).json
        await running.app.wait_idle()
    assert "responsed" not in clean
    assert sum("skipped: 'temprature'" in record.getMessage() for record in caplog.records) == 2


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions"])
async def test_unknown_field_with_strict_fields_is_rejected(path: str) -> None:
    content = {"input": "Hi"} if path == "/v1/responses" else {"messages": [{"role": "user", "content": "Hi"}]}
    async with served(strict_fields=True) as running:
        answer = await exchange(running, "POST", path, encode(**content, temprature=0.1))
        assert (answer.status, answer.json["error"]["param"]) == (400, "temprature")
        assert (await exchange(running, "POST", path, encode(**content, temperature=0.1))).status == 200


@pytest.mark.parametrize(
    ("limit", "status"), [("9" * 400, 200), ("9" * 18, 200), ("-1", 200), ("1e400", 400), ("0", 400), ("-2", 400)]
)
async def test_token_limit_of_any_size_is_no_server_error(limit: str, status: int) -> None:
    body = b'{"model": "scripted", "input": "Hi", "max_output_tokens": ' + limit.encode() + b"}"
    async with served() as running:
        answer = await exchange(running, "POST", "/v1/responses", body)
    assert answer.status == status


CONSTANT = '{"type":"object","properties":{"a":{"const":NUMBER}}}'
SCHEMAS = {
    "/v1/responses": (
        '"input":"Hi","text":{"format":{"type":"json_schema","name":"f","schema":SCHEMA}}',
        '"input":"Hi","tools":[{"type":"function","name":"f","parameters":SCHEMA}]',
        '"input":"Hi","tools":[{"type":"function","name":"f","parameters":SCHEMA,"strict":true}],"tool_choice":"required"',
        '"input":"Hi","tools":[{"type":"tool_search","execution":"client","parameters":SCHEMA}]',
    ),
    "/v1/chat/completions": (
        '"messages":[{"role":"user","content":"Hi"}],"response_format":{"type":"json_object","schema":SCHEMA}',
        '"messages":[{"role":"user","content":"Hi"}],"tools":[{"type":"function","function":{"name":"f","parameters":SCHEMA}}]',
    ),
}
"""Path -> fields with a schema."""


@pytest.mark.parametrize(
    ("number", "readable"), [("1e400", False), ("9" * 5000, False), ("9" * 400, True)], ids=["float", "int", "long"]
)
@pytest.mark.parametrize(("path", "fields"), [(path, each) for path, all_ in SCHEMAS.items() for each in all_])
async def test_number_of_any_size_in_a_schema_is_no_server_error(
    path: str, fields: str, number: str, readable: bool
) -> None:
    body = f"{{{fields}}}".replace("SCHEMA", CONSTANT).replace("NUMBER", number)
    async with served(max_output_tokens=3) as running:
        answer = await exchange(running, "POST", path, body.encode())
    assert answer.status in ((200, 400) if readable else (400,))
    if answer.status == 400:
        assert answer.json["error"]["type"] == "invalid_request_error"
        assert answer.json["error"]["param"]


@pytest.mark.parametrize("field", ["encrypted_content", "content", "arguments", "output", "unknown"])
@pytest.mark.parametrize("kind", ["message", "reasoning", "compaction", "function_call_output", "web_search_call"])
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/responses/input_tokens"])
async def test_number_of_any_size_in_an_item_is_no_server_error(path: str, kind: str, field: str) -> None:
    members = {"encrypted_content": '"x"', "content": '"Hi"', "role": '"user"', field: '{"a":[1e400]}'}
    item = ",".join(f'"{name}":{value}' for name, value in {"type": f'"{kind}"', **members}.items())
    async with served() as running:
        answer = await exchange(
            running, "POST", path, f'{{"input":[{{"role":"user","content":"Hi"}},{{{item}}}]}}'.encode()
        )
    assert answer.status in (200, 400)
