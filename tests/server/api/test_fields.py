"""Effect of each field and endpoint of the API over the socket, one row each.

Other files test fields in depth, and tools, tool_choice, text.format, reasoning, logprobs and penalties.
"""

import base64
import inspect
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from msgspec import Struct
from openai.resources.responses import Responses

from engine.backends.scripted import CONTROL, ScriptedModel
from tests.rows import thinned
from tests.support import wire
from tests.support.helpers import PATIENCE, Answer, Running, encode, exchange, get, official_client, post, served

ANSWER = "Yes."


class ReadingModel(ScriptedModel):
    """Model that shows its prompts."""

    def __init__(self) -> None:
        super().__init__(lambda message: ANSWER.encode(), n_slots=1)

    def prompt(self, tokens: int) -> str:
        """Return the text of the first `tokens` tokens of the last prompt."""
        read = self._cached_tokens[0][:tokens]
        return "".join(CONTROL[token - 256] if token >= 256 else chr(token) for token in read)


def prompt(*turns: tuple[str, str]) -> str:
    """Return the prompt of the turns."""
    return "".join(f"<|{role}|>{text}" for role, text in turns) + "<|assistant|>"


HELLO = prompt(("user", "Hello"))
RESPONSE = {
    "object": "response",
    "status": "completed",
    "background": False,
    "error": None,
    "frequency_penalty": 0.0,
    "incomplete_details": None,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "model": "scripted",
    "parallel_tool_calls": True,
    "presence_penalty": 0.0,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 0.8,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 0.95,
    "truncation": "disabled",
}
"""Response to a request without settings, without the fields that differ each time."""
NEW = ("id", "created_at", "completed_at", "output", "usage", "responsed")


class Row(Struct, frozen=True):
    """Field in one shape, and its effect."""

    fields: dict[str, Any]
    prompt: str = HELLO
    """Prompt of the model."""
    echoed: dict[str, Any] = {}
    """Fields of the response that differ from RESPONSE."""
    text: str = ANSWER


def inputs(*items: Any) -> dict[str, Any]:
    return {"input": list(items)}


def user(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content} | more


def echoes(**fields: Any) -> Row:
    """Return the row of a field that the response echoes as sent."""
    return Row(fields, echoed=fields)


def ignored(**fields: Any) -> Row:
    return Row(fields)


TEXT = {"type": "input_text", "text": "Hello"}
REPLY = {"type": "output_text", "text": "Hi", "annotations": [], "logprobs": []}
CALL = {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": '{"a":2}'}
CALL_TOLD = '<tool_call>\n{"name": "add", "arguments": {"a":2}}\n</tool_call>'
CALLED = [("user", "2+2?"), ("assistant", CALL_TOLD), ("user", "4")]
THOUGHT = [("user", "Hello"), ("assistant", "Hi"), ("user", "And?")]
FILE = "data:text/plain;base64," + base64.b64encode(b"It rains.").decode()


def output(value: Any, **more: Any) -> dict[str, Any]:
    return inputs(user("2+2?"), CALL, {"type": "function_call_output", "call_id": "call_1", "output": value} | more)


def thinking(**fields: Any) -> dict[str, Any]:
    reasoning = {"type": "reasoning", "summary": []} | fields
    return inputs(user("Hello"), reasoning, {"role": "assistant", "content": "Hi"}, user("And?"))


TAKEN: dict[str, Row] = {
    # input
    "input: a text": ignored(input="Hello"),
    "input: a message": Row(inputs({"type": "message", "role": "user", "content": [TEXT]})),
    "input: without type": Row(inputs(user("Hello"))),
    "input: with id and status": Row(inputs(user([TEXT], type="message", id="msg_1", status="completed"))),
    "input: an answer replayed": Row(
        inputs(
            user("Hello"), {"type": "message", "id": "msg_1", "role": "assistant", "content": [REPLY]}, user("And?")
        ),
        prompt(*THOUGHT),
    ),
    "input: a refusal replayed": Row(
        inputs(user("x"), {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}, user("Why?")),
        prompt(("user", "x"), ("assistant", "No."), ("user", "Why?")),
    ),
    # role system/developer
    "role: developer": Row(
        inputs({"role": "developer", "content": "Be kind."}, user("Hello")),
        prompt(("system", "Be kind."), ("user", "Hello")),
    ),
    "role: leading ones are one": Row(
        {
            "instructions": "Be brief.",
            "input": [
                {"role": "developer", "content": "Be kind."}, {"role": "system", "content": "Be true."}, user("Hello"),
            ],
        },
        prompt(("system", "Be brief.\n\nBe kind.\n\nBe true."), ("user", "Hello")),
        {"instructions": "Be brief."},
    ),
    # item function_call / function_call_output
    "function_call: output a text": Row(output("4"), prompt(*CALLED)),
    "function_call: output parts": Row(output([TEXT | {"text": "4"}], status="completed"), prompt(*CALLED)),
    # item reasoning
    "reasoning: parts": Row(thinking(content=[{"type": "reasoning_text", "text": "Hm."}], id="rs_1"), prompt(*THOUGHT)),
    "reasoning: a text": Row(thinking(content="Hm."), prompt(*THOUGHT)),
    "reasoning: null": Row(thinking(content=None, encrypted_content=None), prompt(*THOUGHT)),
    "reasoning: without content": Row(thinking(), prompt(*THOUGHT)),
    "reasoning: an id of its own": Row(thinking(id="rs_1", status="completed"), prompt(*THOUGHT)),
    # unknown items
    "item: unknown": Row(inputs({"type": "web_search_call", "id": "ws_1", "status": "completed"}, user("Hello"))),
    "item_reference": Row(inputs({"type": "item_reference", "id": "{item}"}), prompt(("user", "Was I here?"))),
    "compaction: of somebody else": Row(inputs({"type": "compaction", "encrypted_content": "x"}, user("Hello"))),
    # input_file
    "input_file": Row(
        inputs(user([{"type": "input_file", "filename": "a.txt", "file_data": FILE}])), prompt(("user", "It rains."))
    ),
    # instructions
    "instructions": Row(
        {"instructions": "Be brief."}, prompt(("system", "Be brief."), ("user", "Hello")), {"instructions": "Be brief."}
    ),
    "instructions: null": echoes(instructions=None),
    # past
    "previous_response_id": Row(
        {"previous_response_id": "{response}"},
        prompt(("user", "Was I here?"), ("assistant", ANSWER), ("user", "Hello")),
        {"previous_response_id": "{response}"},
    ),
    "previous_response_id: alone": Row(
        {"previous_response_id": "{response}", "input": None},
        prompt(("user", "Was I here?"), ("assistant", ANSWER)),
        {"previous_response_id": "{response}"},
    ),
    "conversation: by its id": Row(
        {"conversation": "{conversation}"},
        prompt(("user", "We met."), ("user", "Hello")),
        {"conversation": {"id": "{conversation}"}},
    ),
    "conversation: an object": Row(
        {"conversation": {"id": "{conversation}"}},
        prompt(("user", "We met."), ("user", "Hello")),
        {"conversation": {"id": "{conversation}"}},
    ),
    # store
    "store": echoes(store=True),
    "store: null": ignored(store=None),
    "store: false": echoes(store=False),
    "background: false": echoes(background=False),
    # limits and backend_options
    "parallel_tool_calls": echoes(parallel_tool_calls=False),
    "max_tool_calls": echoes(max_tool_calls=3),
    "text: empty": ignored(text={}),
    "text.verbosity": Row(
        {"text": {"verbosity": "low"}}, echoed={"text": {"format": {"type": "text"}, "verbosity": "low"}}
    ),
    "reasoning.summary": Row(
        {"reasoning": {"summary": "auto"}}, echoed={"reasoning": {"effort": None, "summary": "concise"}}
    ),
    "include": ignored(include=["reasoning.encrypted_content"]),
    "include: empty": ignored(include=[]),
    "max_output_tokens": echoes(max_output_tokens=100),
    "max_output_tokens: 1": Row(
        {"max_output_tokens": 1},
        echoed={
            "max_output_tokens": 1, "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"},
        },
        text="Y",
    ),
    "truncation": echoes(truncation="auto"),
    "truncation: auto": Row(
        {
            "truncation": "auto", "input": [user("x" * 5000), {"role": "assistant", "content": "Hm."}, user("Hello")],
        },
        echoed={"truncation": "auto"},
    ),
    "truncation: disabled": echoes(truncation="disabled"),
    "temperature, top_p": echoes(temperature=0.5, top_p=0.5),
    "temperature 0": echoes(temperature=0.0),
    "extensions": ignored(top_k=5, min_p=0.1, seed=7, return_progress=False),
    "stop": Row(
        {"stop": ["s."]},
        text="Ye",
        echoed={"status": "incomplete"},
    ),
    "metadata": echoes(metadata={f"{n:064}": "x" * 512 for n in range(16)}),
    "metadata: null": ignored(metadata=None),
    "prompt_cache_key": echoes(prompt_cache_key="k"),
    "stream_options": ignored(stream_options={"include_obfuscation": True}),
    "service_tier": ignored(service_tier="auto"),
    "service_tier: flex": echoes(service_tier="flex"),
    "service_tier: another": ignored(service_tier="priority"),
    "user": echoes(user="ada"),
    "user: null": ignored(user=None),
    "safety_identifier": echoes(safety_identifier="s"),
    "moderation": ignored(moderation={"model": "x"}),
    "context_management": ignored(context_management=[{"type": "compaction", "compact_threshold": 10}]),
    "client_metadata": ignored(client_metadata={"x-codex": "1"}),
    "prompt_cache_retention": echoes(prompt_cache_retention="24h"),
    "prompt_cache_retention: in_memory": echoes(prompt_cache_retention="in_memory"),
    "prompt_cache_options": Row(
        {"prompt_cache_options": {}}, echoed={"prompt_cache_options": {"mode": "implicit", "ttl": "30m"}}
    ),
    "prompt_cache_options: all without effect": Row(
        {"prompt_cache_options": {"mode": "explicit", "ttl": "12h", "prewarm": False}},
        echoed={"prompt_cache_options": {"mode": "implicit", "ttl": "12h"}},
    ),
    "anything else": ignored(no_such_field={"a": [1, None]}),
    "prompt: null": ignored(prompt=None),
}  # fmt: skip


async def there_is(running: Running) -> dict[str, str]:
    """Create the objects that rows reference; return their ids by the names in the rows."""
    response = (await post(running, input="Was I here?")).json
    listed = (await get(running, f"/v1/responses/{response['id']}/input_items")).json
    body = encode(items=[user("We met.")])
    conversation = (await exchange(running, "POST", "/v1/conversations", body)).json
    return {"response": response["id"], "item": listed["first_id"], "conversation": conversation["id"]}


def filled(row: Row, ids: dict[str, str]) -> Row:
    """Return the row with ids in place of names."""
    text = msgspec.json.encode(row).decode()
    for name, id_ in ids.items():
        text = text.replace(f'"{{{name}}}"', f'"{id_}"')
    return msgspec.json.decode(text, type=Row)


def refers(row: Row) -> bool:
    """Return whether a row has names of objects."""
    return b'"{' in msgspec.json.encode(row)


@pytest.mark.slow
@pytest.mark.parametrize("wanted", thinned(TAKEN))
async def test_supported_field_has_its_effect_and_echo(wanted: Row, tmp_path: Path) -> None:
    """Prompt and response are equal for a stream and a plain answer."""
    model = ReadingModel()
    async with served(model, state=tmp_path) as running:
        for stream in (False, True):
            row = filled(wanted, await there_is(running)) if refers(wanted) else wanted
            answer = await post(running, **{"input": "Hello"} | row.fields, stream=stream)
            assert answer.status == 200, answer.body
            response = answer.events[-1]["response"] if stream else answer.json
            wire.check_response(response)
            assert model.prompt(response["usage"]["input_tokens"]) == row.prompt
            assert answer.text == row.text
            assert {name: value for name, value in response.items() if name not in NEW} == RESPONSE | row.echoed
            assert b"obfuscation" not in answer.body
            found = await get(running, f"/v1/responses/{response['id']}")
            assert (found.status, found.json == response) == ((200, True) if response["store"] else (404, False))


OFFICIAL = inspect.signature(Responses.create).parameters


@pytest.mark.slow
async def test_supported_fields_by_official_client_are_accepted(tmp_path: Path) -> None:
    """Send each field by its name in the client if the client has it."""

    def use(url: str, ids: dict[str, str]) -> dict[str, str]:
        found = {}
        with official_client(url, timeout=PATIENCE) as client:
            for name, row in TAKEN.items():
                fields = {"model": "scripted", "input": "Hello"} | filled(row, ids).fields
                known: dict[str, Any] = {each: value for each, value in fields.items() if each in OFFICIAL}
                more = {each: value for each, value in fields.items() if each not in OFFICIAL}
                found[name] = client.responses.create(**known, extra_body=more).output_text
        return found

    async with served(ReadingModel(), state=tmp_path) as running:
        found = await trio.to_thread.run_sync(use, running.url, await there_is(running))
    assert found == {name: row.text for name, row in TAKEN.items()}


Refusal = tuple[dict[str, Any], str, str | None]
REFUSED: dict[str, Refusal] = {
    # Fields, and `param` and `code` of the 400
    "input: missing": ({"input": None}, "input", None),
    "input: nothing": ({"input": []}, "input", None),
    "input_image": (
        inputs(user([{"type": "input_image", "image_url": "data:,"}])), "input[0].content[0]", None,
    ),
    "input_file: elsewhere": (
        inputs(user([{"type": "input_file", "file_id": "file_1"}])), "input[0].content[0]", None,
    ),
    "item_reference: to nothing": (inputs({"type": "item_reference", "id": "msg_1"}), "input[0].id", None),
    "previous_response_id: of nothing": (
        {"previous_response_id": "resp_1"}, "previous_response_id", "previous_response_not_found",
    ),
    "conversation, and previous_response_id": (
        {"conversation": "conv_1", "previous_response_id": "resp_1"}, "conversation", None,
    ),
    "background, not stored": ({"background": True, "store": False}, "background", None),
    "prompt": ({"prompt": {"id": "pmpt_1", "version": "2"}}, "prompt", None),
    "prompt, and no input": ({"prompt": {"id": "pmpt_1"}, "input": None}, "prompt", None),
    "max_tool_calls: 0": ({"max_tool_calls": 0}, "max_tool_calls", None),
    "text.verbosity: another": ({"text": {"verbosity": "verbose"}}, "text.verbosity", None),
    "max_output_tokens: 0": ({"max_output_tokens": 0}, "max_output_tokens", None),
    "truncation: another": ({"truncation": "some"}, "truncation", None),
    "truncation: disabled": ({"input": "x" * 5000}, "input", "context_length_exceeded"),
    "temperature": ({"temperature": 2.5}, "temperature", None),
    "top_p": ({"top_p": -1}, "top_p", None),
    "metadata: too many": ({"metadata": {str(n): "x" for n in range(17)}}, "metadata", None),
    "metadata: a long key": ({"metadata": {"k" * 65: "x"}}, "metadata", None),
    "metadata: a long value": ({"metadata": {"k": "x" * 513}}, "metadata.k", None),
    "stream_options: no object": ({"stream_options": 1}, "stream_options", None),
    "include_obfuscation: no bool": (
        {"stream_options": {"include_obfuscation": "x"}}, "stream_options.include_obfuscation", None,
    ),
    "stream: no bool": ({"stream": "yes"}, "stream", None),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "param", "code"), REFUSED.values(), ids=REFUSED)
async def test_unsupported_field_is_rejected_by_name(
    fields: dict[str, Any], param: str, code: str | None, tmp_path: Path
) -> None:
    model = ReadingModel()
    async with served(model, state=tmp_path) as running:
        answer = await post(running, **{"input": "Hello"} | fields)
        error = answer.json["error"]
        assert (answer.status, error["type"], error["param"], error["code"]) == (
            400, "invalid_request_error", param, code,
        )  # fmt: skip
        assert model.decoded == []


async def test_unknown_model_is_not_found() -> None:
    async with served() as running:
        answer = await post(running, model="gpt-9", input="Hello")
    error = answer.json["error"]
    assert (answer.status, error["param"], error["code"]) == (404, "model", "model_not_found")


async def test_instructions_of_previous_response_are_not_inherited(tmp_path: Path) -> None:
    model = ReadingModel()
    async with served(model, state=tmp_path) as running:
        first = (await post(running, input="Hello", instructions="Be brief.")).json
        second = (await post(running, input="And?", previous_response_id=first["id"])).json
    assert (second["instructions"], second["previous_response_id"]) == (None, first["id"])
    expected = prompt(("user", "Hello"), ("assistant", ANSWER), ("user", "And?"))
    assert model.prompt(second["usage"]["input_tokens"]) == expected


# Endpoints


class Made(Struct, frozen=True):
    """Objects that exist before the request."""

    streamed: Answer
    response: dict[str, Any]
    """Response of `streamed`."""
    background: dict[str, Any]

    @property
    def frames(self) -> list[bytes]:
        return [frame + b"\n\n" for frame in self.streamed.body.split(b"\n\n")[:-1]]


async def make(running: Running) -> Made:
    streamed = await post(running, input="Hello", stream=True)
    queued = (await post(running, input="Hello", background=True)).json
    await running.app.wait_idle()
    background = (await get(running, f"/v1/responses/{queued['id']}")).json
    return Made(streamed, streamed.events[-1]["response"], background)


def error(message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def items(made: Made) -> dict[str, Any]:
    stem = made.response["id"].removeprefix("resp_")
    item = {"id": f"msg_{stem}i00", "type": "message", "status": "completed", **user([TEXT])}
    return {"data": [item], "first_id": item["id"], "last_id": item["id"], "has_more": False, "object": "list"}


def uncancelled(made: Made) -> dict[str, Any]:
    message = f"Response {made.response['id']!r} cannot be cancelled: it was created without `background: true`."
    return error(message)


ENDPOINTS: dict[str, tuple[str, str, int, Any]] = {
    "retrieve": ("GET", "/v1/responses/{id}", 200, lambda made: made.response),
    "retrieve, with what is asked elsewhere": (
        "GET", "/v1/responses/{id}?include[]=x&include_obfuscation=true", 200, lambda made: made.response,
    ),
    "retrieve one of the background": ("GET", "/v1/responses/{background}", 200, lambda made: made.background),
    "stream": ("GET", "/v1/responses/{id}?stream=true", 200, lambda made: made.streamed.body),
    "resume": (
        "GET", "/v1/responses/{id}?stream=true&starting_after=3", 200, lambda made: b"".join(made.frames[4:]),
    ),
    "delete": (
        "DELETE", "/v1/responses/{id}", 200,
        lambda made: {"id": made.response["id"], "object": "response", "deleted": True},
    ),
    "cancel what has ended": ("POST", "/v1/responses/{background}/cancel", 200, lambda made: made.background),
    "cancel what is not of the background": ("POST", "/v1/responses/{id}/cancel", 400, uncancelled),
    "input items": ("GET", "/v1/responses/{id}/input_items", 200, items),
    "count": (
        "POST", "/v1/responses/input_tokens", 200,
        lambda made: {"object": "response.input_tokens", "input_tokens": len("uHelloa")},
    ),
    "count with a wrong method": (
        "GET", "/v1/responses/input_tokens", 405,
        lambda made: error(
            "Method GET is not allowed for /v1/responses/input_tokens; allowed: POST, OPTIONS.",
            None,
            "method_not_allowed",
        ),
    ),
    "compact": ("POST", "/v1/responses/compact", 200, {"object": "response.compaction"}),
    "make a conversation": ("POST", "/v1/conversations", 200, {"object": "conversation", "metadata": {}}),
    "an unknown conversation": (
        "GET", "/v1/conversations/conv_1", 404,
        lambda made: error("There is no conversation 'conv_1' here.", None, "not_found"),
    ),
    "list": (
        "PUT", "/v1/responses", 405,
        lambda made: error(
            "Method PUT is not allowed for /v1/responses; allowed: POST, GET, OPTIONS.", None, "method_not_allowed"
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("method", "path", "status", "expected"), ENDPOINTS.values(), ids=ENDPOINTS)
async def test_endpoint_gives_expected_answer(
    method: str, path: str, status: int, expected: Any, tmp_path: Path
) -> None:
    async with served(state=tmp_path) as running:
        made = await make(running)
        path = path.format(id=made.response["id"], background=made.background["id"])
        # Every endpoint skips an unknown field.
        body = encode(input="Hello", no_such_field=1) if method == "POST" else None
        answer = await exchange(running, method, path, body)
    assert answer.status == status
    if isinstance(expected, dict):  # other tests cover the other fields
        assert answer.json | expected == answer.json
        return
    wanted = expected(made)
    assert (answer.body if isinstance(wanted, bytes) else answer.json) == wanted
