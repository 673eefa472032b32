"""The questions to an upstream before the start: its model, its context, and the fields that it lacks."""

import json
from collections.abc import Callable, Collection
from typing import Any

import pytest
import trio

from server.upstream.chat.model import UpstreamModel
from server.upstream.chat.probe import HARMLESS
from server.upstream.discovery import DiscoveredModel, find_models, upstream_model
from server.upstream.forms import ChatForm
from server.upstream.transport.address import Address
from server.upstream.transport.client import UpstreamClient
from server.upstream.transport.missing_fields import MissingFields
from tests.server.upstream.scripted_upstream import TIMEOUTS, Asked, Play, ScriptedUpstream, fronted, says, status
from tests.support.helpers import get, post

Answer = Callable[[dict[str, Any]], dict[str, Any]]


def capable(body: dict[str, Any]) -> dict[str, Any]:
    """Answer as an upstream that has all fields."""
    message: dict[str, Any] = {"content": "It is noon."}
    if "response_format" in body:
        message = {"content": '{"ok":true}'}
    elif body.get("tool_choice") == "required":
        message = {"content": None, "tool_calls": [{"id": "1"}]}
    elif "stop" in body:
        message = {"content": "It"[:0]}
    logprobs: dict[str, Any] | None = {"content": []} if "logprobs" in body else None
    tokens = 60 if "tools" in body else 12
    return {"choices": [{"message": message, "logprobs": logprobs}], "usage": {"prompt_tokens": tokens}}


def ignorant(body: dict[str, Any]) -> dict[str, Any]:
    """Answer as an upstream that ignores what it does not know."""
    return capable({name: body[name] for name in ("model", "messages", "max_tokens")})


def thinking(body: dict[str, Any]) -> dict[str, Any]:
    """Answer as an upstream whose model still thinks: that shows no lack."""
    return capable(body) | {"choices": [{"message": {"content": "", "reasoning_content": "Hm"}, "logprobs": {"a": 1}}]}


def cutting(body: dict[str, Any]) -> dict[str, Any]:
    """Answer as vLLM, which returns a call that is cut as a text."""
    answer = capable(body)
    if body.get("tool_choice") == "required":
        answer["choices"] = [{"message": {"content": '<tool_call>\n{"name": "get'}, "finish_reason": "length"}]
    return answer


def answers(answer: Answer, refused: Collection[str] = ()) -> Play:
    async def play(stream: trio.SocketStream, asked: Asked) -> None:
        wrong = sorted(set(refused) & asked.body.keys())
        wrong += ["stop"] if len(asked.body.get("stop", ())) > 4 else []  # the limit of OpenAI's API and of vLLM
        body = json.dumps({"error": {"message": f"unknown {wrong}"}} if wrong else answer(asked.body)).encode()
        await status(400 if wrong else 200, body)(stream, asked)

    return play


async def unreadable(stream: trio.SocketStream, asked: Asked) -> None:
    """Answer as llama.cpp's server whose model does not write the format of its template."""
    message = "The model produced output that does not match the expected peg-native format"
    refused = "logprobs" in asked.body
    body = {"error": {"code": 500, "message": "no logprobs" if refused else message}}
    await status(500, json.dumps(body).encode())(stream, asked)


async def found(play: Play, models: object = None, info: object = None) -> DiscoveredModel:
    async with trio.open_nursery() as nursery:
        upstream = ScriptedUpstream([play], models, info=info)
        await nursery.start(upstream.serve)
        (one,) = await find_models([UpstreamClient(Address.of(upstream.url), TIMEOUTS)], None, ChatForm().probe)
        nursery.cancel_scope.cancel()
    return one


@pytest.mark.parametrize(
    ("answer", "refused", "lacks"),
    [
        (capable, (), ""),
        (thinking, (), ""),
        (cutting, (), ""),
        (ignorant, (), "ignores logprobs, response_format, stop, tool_choice, tools, top_logprobs"),
        (capable, ("seed", "top_k"), "refuses seed, top_k"),
        (capable, ("tools", "stream_options"), "refuses stream_options, tools"),
        (capable, ("logprobs",), "refuses logprobs, top_logprobs"),
        (capable, ("response_format", "stop", "tool_choice"), "refuses response_format, stop, tool_choice"),
    ],
)
async def test_probe_names_the_fields_that_are_refused_or_ignored(
    answer: Answer, refused: Collection[str], lacks: str
) -> None:
    assert str((await found(answers(answer, refused))).missing_fields) == lacks


async def test_output_that_the_upstream_cannot_read_shows_no_lack() -> None:
    one = await found(unreadable)
    assert (one.error, str(one.missing_fields)) == ("", "refuses logprobs, top_logprobs")


SGLANG = {"data": [{"id": "m", "owned_by": "sglang"}]}


@pytest.mark.parametrize(
    ("info", "lacks"),
    [
        ({"enable_deterministic_inference": False}, ""),
        ({"enable_deterministic_inference": True}, "refuses min_p"),
        (None, "refuses min_p"),
    ],
)
async def test_sglang_is_not_sent_a_field_that_ends_its_process(info: object, lacks: str) -> None:
    asked: list[str] = []

    async def play(stream: trio.SocketStream, request: Asked) -> None:
        asked.extend(request.body)
        await answers(capable)(stream, request)

    assert str((await found(play, SGLANG, info)).missing_fields) == lacks
    assert ("min_p" in asked) == (not lacks)


async def test_probe_asks_for_each_field_only_if_all_together_are_refused() -> None:
    async with trio.open_nursery() as nursery:
        upstream = ScriptedUpstream([answers(capable)])
        await nursery.start(upstream.serve)
        await find_models([UpstreamClient(Address.of(upstream.url), TIMEOUTS)], None, ChatForm().probe)
        nursery.cancel_scope.cancel()
    fields = [sorted(each.body.keys() - {"model", "messages", "max_tokens", "temperature"}) for each in upstream.asked]
    assert fields == [
        [],
        sorted(HARMLESS.keys() - {"temperature"}),
        ["stream", "stream_options"],
        ["logprobs", "top_logprobs"],
        ["stop"],
        ["response_format"],
        ["tools"],
        ["tool_choice", "tools"],
    ]


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ({"data": [{"id": "a", "max_model_len": 4096}]}, ("a", 4096, "")),
        ({"data": [{"id": "a", "context_length": 2048}, {"id": "b"}]}, ("a", 2048, "")),
        ({"data": [{"id": "a", "created": 7, "meta": {"n_ctx": 512, "n_ctx_train": 8192}}]}, ("a", 512, "")),
        ({"data": [{"id": "a"}]}, ("a", 0, "")),
        ({"data": []}, ("", 0, "has no model")),
        ([], ("", 0, "does not list its models")),
    ],
)
async def test_model_and_context_are_those_of_the_list(models: object, expected: tuple[str, int, str]) -> None:
    one = await found(answers(capable), models)
    assert (one.model, one.n_ctx) == expected[:2]
    assert expected[2] in one.error
    assert bool(one.error) == bool(expected[2])


async def test_upstream_that_cannot_complete_is_not_usable() -> None:
    assert "status 500" in (await found(status(500))).error


def test_model_is_that_of_all_usable_upstreams() -> None:
    each = [
        DiscoveredModel("http://a", "m", 5, n_ctx=4096, missing_fields=MissingFields(frozenset({"seed"}))),
        DiscoveredModel("http://b", "m", 6, n_ctx=2048, missing_fields=MissingFields(ignored=frozenset({"stop"}))),
        DiscoveredModel("http://c", error="The upstream http://c cannot be reached."),
    ]
    seed, stop = frozenset({"seed"}), frozenset({"stop"})
    expected = UpstreamModel(name="m", created=5, n_ctx=2048, n_slots=24, refused=seed, ignored=stop, front="f")
    assert upstream_model(each, 0, 8, front="f") == expected
    assert upstream_model(each, 1000, 8).n_ctx == 1000


async def test_lacking_fields_are_not_sent_and_are_named() -> None:
    refused, ignored = frozenset({"seed", "top_k"}), frozenset({"stop"})
    async with fronted(says("Hi"), refused=refused, ignored=ignored) as front:
        plain = (await post(front, model="m", input="Hi")).json
        response = (await post(front, model="m", input="Hi", seed=7, stop="x")).json
        models = (await get(front, "/v1/models")).json
    assert ("responsed" in plain, response["responsed"]) == (False, {"upstream": ["seed", "stop"]})
    assert front.asked[1].body.keys() & {"seed", "stop"} == {"stop"}
    assert models["data"][0]["meta"]["lacking"] == ["seed", "stop", "top_k"]
    assert "tools" in models["data"][0]["meta"]["capabilities"]


async def test_tools_are_refused_if_the_upstream_refuses_them() -> None:
    tool = {"type": "function", "name": "go"}
    async with fronted(says("Hi"), refused=frozenset({"tools"})) as front:
        answer = await post(front, model="m", input="Hi", tools=[tool])
    assert (answer.status, answer.json["error"]["param"], front.asked) == (400, "tools", [])
