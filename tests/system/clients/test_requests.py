"""Recorded requests of real clients: each is answered."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from engine.backends.scripted import ScriptedModel
from tests.data import requests
from tests.server.upstream.fronts import Served
from tests.support import wire
from tests.support.helpers import Answer, exchange

RECORDED = Path(__file__).parents[4] / "shared" / "requests" / "real-clients.jsonl"
WITH_CODEX = 65536
"""Codex's own words alone are 40 kB, and here a byte is a token."""

Shape = dict[str, Any]
JSON_BODY = "content-type: application/json"

REFUSED = {
    "not a method of it": (405, None),
    "goes on from nothing": (400, "previous_response_id"),
    "in the background, and not stored": (400, "background"),
    "input missing": (400, "input"),
    "no input": (400, "input"),
    "only unknown items": (400, "input"),
    "an image": (400, "input[0].content[0]"),
    "temperature of the wrong kind": (400, "temperature"),
    "temperature out of range": (400, "temperature"),
    "a schema of no type": (400, "text.format.schema"),
    "a call of nobody": (400, "tool_choice"),
}


def shapes() -> list[Shape]:
    return [json.loads(line) for line in RECORDED.read_text().splitlines()] if RECORDED.exists() else []


def fault(shape: Shape) -> str | None:
    """Return the name in REFUSED of the fault that the request has on purpose."""
    body = shape["body"]
    temperature, input_ = body.get("temperature"), body.get("input")
    faults = {
        "not a method of it": shape["method"] != "POST",
        "goes on from nothing": body.get("previous_response_id") is not None,
        "in the background, and not stored": bool(body.get("background")) and body.get("store") is False,
        "input missing": input_ is None,
        "no input": input_ == [],
        "only unknown items": isinstance(input_, list) and {item.get("type") for item in input_} == {"no_such_item"},
        "an image": "input_image" in json.dumps(input_),
        "temperature of the wrong kind": isinstance(temperature, str),
        "temperature out of range": isinstance(temperature, int | float) and not 0 <= temperature <= 2,
        "a schema of no type": "no-such-type" in json.dumps(body),
        "a call of nobody": (body.get("tool_choice") or {}) == {"type": "function", "name": "nope"},
    }
    return next((name for name, found in faults.items() if found), None)


@pytest.mark.parametrize("client", requests.ANSWERED)
async def test_request_of_a_client_is_answered(served: Served, client: str, tmp_path: Path) -> None:
    body = requests.ANSWERED[client]
    shape = {"path": "/v1/responses", "body": body}
    text = WISHED.get(wished_format(shape), b"Hello.")
    model = ScriptedModel(lambda message: text, n_ctx=WITH_CODEX)
    async with served(model, aliases=("smollm2",), state=tmp_path) as running:
        answer = await exchange(running, "POST", "/v1/responses", json.dumps(body).encode(), JSON_BODY)
    if running.sends_chat and (tool := lark_tool(body)) is not None:
        assert (answer.status, answer.json["error"]["param"]) == (400, f"tools[{tool}].format")
    else:
        check_answered(shape, answer, counts=not running.sends_chat)


def lark_tool(body: dict[str, Any]) -> int | None:
    """Return the index of the first tool with a grammar in Lark, which chat completions cannot express."""
    tools = enumerate(body.get("tools") or ())
    return next((index for index, tool in tools if (tool.get("format") or {}).get("syntax") == "lark"), None)


@pytest.mark.parametrize("fault", requests.REFUSED)
async def test_wrong_request_is_refused_by_its_field(served: Served, fault: str, tmp_path: Path) -> None:
    body, field = requests.REFUSED[fault]
    async with served(ScriptedModel(), aliases=("smollm2",), state=tmp_path) as running:
        answer = await exchange(running, "POST", "/v1/responses", json.dumps(body).encode(), JSON_BODY)
    assert (answer.status, answer.json["error"]["param"]) == (400, field)


@pytest.mark.skipif(not RECORDED.exists(), reason=f"{RECORDED} is not here")
@pytest.mark.slow
async def test_recorded_request_is_answered_as_expected(served: Served, tmp_path: Path) -> None:
    says = [b""]
    model = ScriptedModel(lambda message: says[0], n_ctx=WITH_CODEX)
    recorded = shapes()
    faults = [fault(shape) for shape in recorded]
    async with served(model, aliases=("smollm2",), state=tmp_path) as running:
        for shape, wrong in zip(recorded, faults, strict=True):
            body = json.dumps(shape["body"]).encode()
            headers = [f"{name}: {value}" for name, value in shape["headers"].items() if name not in OURS]
            says[0] = WISHED.get(wished_format(shape), b"Hello.")
            answer = await exchange(running, shape["method"], shape["path"], body, *headers)
            if wrong is None:
                check_answered(shape, answer, counts=not running.sends_chat)
            else:
                assert (wrong, answer.status, answer.json["error"]["param"]) == (wrong, *REFUSED[wrong])
    assert (len(recorded), set(faults)) == (148, {None, *REFUSED})


WISHED = {"json_object": b'{"x": 1}'}


def wished_format(shape: Shape) -> str:
    text = shape["body"].get("text") or {}
    return str((text.get("format") or {}).get("type"))


def check_called(body: dict[str, Any], response: dict[str, Any]) -> None:
    schemas = {tool["name"]: tool["parameters"] for tool in body["tools"]}
    assert response["output"], "a call was demanded"
    for item in response["output"]:
        assert item["type"] == "function_call"
        if item["status"] == "completed":
            jsonschema.validate(json.loads(item["arguments"]), schemas[item["name"]])
        else:
            assert response["status"] == "incomplete"


OURS = ("content-type", "content-length", "connection", "host", "transfer-encoding")
"""Headers that the connection of the test has its own of."""


def check_answered(shape: Shape, answer: Answer, counts: bool = True) -> None:
    """`counts`: False if numbers of tokens are estimates."""
    assert answer.status == 200, f"{shape['body']} was refused: {answer.body.decode()}"
    if shape["path"] == "/v1/responses/input_tokens":
        counted = answer.json["input_tokens"]
        assert counted == len("<Hello there<") if counts else counted > 0
        return
    streamed = bool(shape["body"].get("stream"))
    response = answer.events[-1]["response"] if streamed else answer.json
    if not streamed:
        wire.check_response(response)
    if response["background"] and not streamed:
        assert (response["status"], response["output"]) == ("queued", [])
        return
    kinds = ("function", "namespace", "custom")
    served_tools = [tool for tool in shape["body"].get("tools") or () if tool["type"] in kinds]
    assert [(tool["type"], tool["name"]) for tool in response["tools"]] == [
        (tool["type"], tool["name"]) for tool in served_tools
    ]
    if shape["body"].get("tool_choice") not in (None, "auto", "none"):
        check_called(shape["body"], response)
        return
    check_text(shape, response["status"], answer.text)


def check_text(shape: Shape, status: str, text: str) -> None:
    """Check the text of an answer against its format and its limit of tokens."""
    if wished_format(shape) == "json_schema":
        if status == "completed":
            jsonschema.validate(json.loads(text), shape["body"]["text"]["format"]["schema"])
        else:
            assert shape["body"]["max_output_tokens"] < 100
        return
    if wished_format(shape) == "json_object":
        assert json.loads(text) == {"x": 1}
        return
    limit = shape["body"].get("max_output_tokens") or 100
    expected = ("incomplete", "Hello."[:limit]) if limit <= len("Hello.") else ("completed", "Hello.")
    assert (status, text) == expected
