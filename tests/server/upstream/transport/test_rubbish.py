"""Rubbish as answers to probes: an upstream counts as unusable, or lacks fields. A check that raises ends nothing."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
import trio

from engine.backends import scripted
from engine.backends.scripted import ScriptedModel
from engine.chat_template import ChatTemplate
from server.upstream import chat
from server.upstream.discovery import DiscoveredModel, ProbeUpstream, find_models
from server.upstream.forms import ChatForm, TokenForm
from server.upstream.generator import INTERVALS, UpstreamGenerator
from server.upstream.replicas import Replica
from server.upstream.transport import Address, UpstreamClient
from tests.rows import thinned
from tests.server.upstream.scripted_upstream import (
    HEAD,
    LAST,
    TIMEOUTS,
    Play,
    ScriptedUpstream,
    event,
    fronted,
    plays,
    status,
)
from tests.server.upstream.test_presence import upstream
from tests.server.upstream.test_probe import answers, capable
from tests.server.upstream.token_upstreams import token_upstreams
from tests.server.upstream.tokens.forms import VOCABULARY
from tests.support.helpers import post

GOOD = (0, 1, 2, 7, 13)
"""Answers of a good upstream before rubbish: to some probes, and to none."""
UNKNOWN: Sequence[int] = (-1, len(VOCABULARY), 1 << 31)
"""Ids that the vocabulary does not have."""
ODD_IDS: list[Any] = [
    *([each] for each in UNKNOWN),
    [1 << 63],
    [-(10**30)],
    ["a"],
    [None],
    [1.5],
    [[]],
    [80, -1],
    5,
    {},
]
DEEP = b"[" * 100_000 + b"]" * 100_000
SHAPES: list[Any] = [None, [], "a", -1, {}, {"error": None}, {"error": []}, {"error": {"code": -1}}, {"error": [{}]}]
CHOICES: list[Any] = [None, {}, [None], [[]], [{"message": None}], [{"message": []}]]
MESSAGES: list[Any] = [
    {"content": []},
    {"content": 5},
    {"tool_calls": {"a": 1}},
    {"content": "a", "tool_calls": [None]},
]
PROMPTS: list[Any] = [None, -5, 1 << 80, "a", 0.5]
CHAT: list[Any] = [
    *({"choices": each} for each in CHOICES),
    *({"choices": [{"message": each, "logprobs": -1}]} for each in MESSAGES),
    *({"choices": [], "usage": {"prompt_tokens": each}} for each in PROMPTS),
]


def vllm(ids: Any, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"text": "", "token_ids": ids, "finish_reason": "length", **fields}]}


def llamacpp(ids: Any, count: int = 1, **fields: Any) -> dict[str, Any]:
    return {"content": "", "tokens": ids, "stop": True, "stop_type": "limit", "tokens_predicted": count, **fields}


def sglang(ids: Any, count: int = 1, **meta: Any) -> dict[str, Any]:
    info = {"completion_tokens": count, "finish_reason": {"type": "length"}, **meta}
    return {"text": "", "output_ids": ids, "meta_info": info}


CHOSEN: list[Any] = [[{}], [{"id": -1, "logprob": 1}] * 3, "a"]
COUNTS: Sequence[int] = (-1, 0, 5, 1 << 40, 10**30)
TOKENS: dict[str, list[Any]] = {
    "vLLM": [
        *map(vllm, ODD_IDS),
        *(vllm([80], logprobs={"token_logprobs": each}) for each in ([], [None, None], [-1], "a")),
        *(vllm([80], logprobs={"token_logprobs": [-1], "top_logprobs": each}) for each in ([{"a": 1}], [{"-1": 1}])),
    ],
    "llama.cpp": [
        *map(llamacpp, ODD_IDS),
        *(llamacpp([80], each) for each in COUNTS),
        *(llamacpp([each], 1 << 40) for each in UNKNOWN),
        *(llamacpp([80], completion_probabilities=each) for each in CHOSEN),
    ],
    "SGLang": [
        *map(sglang, ODD_IDS),
        *(sglang([80], each) for each in COUNTS),
        *(sglang([80], each, output_token_logprobs=[[-1, 80, None]]) for each in COUNTS),
        sglang([80], output_token_logprobs=[[-1, -1, None]], output_top_logprobs=[[[-1, -1, None]]]),
    ],
}


async def found(server: ScriptedUpstream, probe: ProbeUpstream, plays: Sequence[Play]) -> DiscoveredModel:
    """Return what is found out about an upstream that plays these answers, the last one again and again."""
    server._answers = list(plays)
    (one,) = await find_models([UpstreamClient(Address.of(server.url), TIMEOUTS)], None, probe)
    return one


def played(bodies: Sequence[Any]) -> list[Play]:
    return [status(200, DEEP), status(200, b"\xff"), *(status(200, json.dumps(each).encode()) for each in bodies)]


def token_probe() -> ProbeUpstream:
    return TokenForm(VOCABULARY, ChatTemplate(scripted.TEMPLATE, VOCABULARY)).probe


@pytest.mark.slow
async def test_rubbish_is_no_exception_of_a_probe_by_chat_completions() -> None:
    good = answers(capable)
    async with upstream(good) as server:
        for rubbish in played([*SHAPES, *CHAT]):
            for count in GOOD:
                await found(server, ChatForm().probe, [good] * count + [rubbish])


@pytest.mark.slow
@pytest.mark.parametrize("kind", TOKENS)
async def test_rubbish_is_no_exception_of_a_probe_by_tokens(kind: str) -> None:
    async with token_upstreams([ScriptedModel(lambda message: b"Paris and more")], kind) as (one,):
        good = one.server._answers[0]
        for rubbish in played([*SHAPES, *TOKENS[kind]]):
            for count in GOOD:
                await found(one.server, token_probe(), [good] * count + [rubbish])


@pytest.mark.parametrize(("id_", "before"), thinned({f"{id_}, {n}": (id_, n) for id_ in UNKNOWN for n in (0, 10)}, 2))
async def test_token_without_a_text_makes_an_upstream_unusable(id_: int, before: int) -> None:
    """The tokens of the first answer and of that in a grammar are compared by their text."""
    async with token_upstreams([ScriptedModel(lambda message: b"Paris and more")], "vLLM") as (one,):
        good, wrong = one.server._answers[0], status(200, json.dumps(vllm([id_])).encode())
        facts = await found(one.server, token_probe(), [good] * before + [wrong])
    assert facts.error.endswith(f"it returns the token {id_}, which the file of --tokenizer does not have.")
    assert len(one.server.asked) == before + 1


async def test_check_that_raises_counts_as_failed_and_is_repeated(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    replica = Replica(UpstreamClient(Address.of("http://a"), TIMEOUTS))
    checks = list[bool]()

    async def check(checked: Replica) -> bool:
        checks.append(checked.healthy)
        if len(checks) < 3:
            raise IndexError("there is no text -1")
        return True

    generator = UpstreamGenerator([replica], 1, chat.ask, check)
    async with trio.open_nursery() as nursery:
        await nursery.start(generator.run)
        await trio.sleep(INTERVALS.healthy + 3.5 * INTERVALS.failed)
        nursery.cancel_scope.cancel()
    assert checks == [True, False, False]
    assert replica.healthy
    assert caplog.messages == [
        "the check of upstream http://a failed",
        "upstream http://a does not answer",
        "the check of upstream http://a failed",
        "upstream http://a answers",
    ]


@pytest.mark.parametrize("id_", UNKNOWN)
async def test_likely_token_without_a_text_is_left_out(id_: int) -> None:
    """An upstream may pad its vocabulary with ids that no text has."""
    likely = {"token_logprobs": [-0.5], "top_logprobs": [{f"token_id:{id_}": -0.1, "token_id:72": -0.5}]}
    play = plays(HEAD, event(vllm([72], text="H", logprobs=likely)), event(b"[DONE]") + LAST)
    async with fronted(play, tokens=True) as front:
        answer = await post(front, model="m", input="Hi", top_logprobs=2, include=["message.output_text.logprobs"])
    (logprob,) = answer.json["output"][0]["content"][0]["logprobs"]
    assert [(each["token"], each["logprob"]) for each in logprob["top_logprobs"]] == [("H", -0.5)]
