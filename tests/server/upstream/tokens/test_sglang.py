"""Parts of SGLang's answers, as SGLang 0.5.23 writes them."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
import trio

from engine.job import FinishReason, Token, TokenLogprobs
from server.upstream.tokens import parts
from server.upstream.tokens.parts import AnswerParts
from server.upstream.tokens.servers import NEUTRAL, AnswerPart, Continuation, Syntax
from server.upstream.tokens.sglang import SglangServer
from server.upstream.transport import UpstreamFault
from server.upstream.transport.address import Address
from server.upstream.transport.client import UpstreamClient
from tests.server.upstream.scripted_upstream import HEAD, LAST, TIMEOUTS, Play, ScriptedUpstream, event, plays, status

PARIS, DOT, END = 7042, 30, 2
STOP = {"type": "stop", "matched": END}
ASKED = Continuation([504, 3575, 282, 4649, 314], 16, NEUTRAL, ends=[END])
DONE = event(b"[DONE]") + LAST


def part(text: str, ids: Sequence[int], count: int, reason: object = None, **more: Any) -> dict[str, Any]:
    """Return a part of a stream, or a whole answer. `count`: tokens so far."""
    meta = {
        "id": "ccfb16e73dc94e68960cbd078ecd8fd5",
        "finish_reason": reason,
        "prompt_tokens": 5,
        "weight_version": "default",
        "num_retractions": 0,
        "reasoning_tokens": 0,
        "completion_tokens": count,
        "cached_tokens": 4,
        "cached_tokens_details": {"device": 4, "host": 0},
        "dp_rank": None,
    }
    return {"text": text, "output_ids": list(ids), "meta_info": meta | more}


def likely(*logprobs: tuple[int, float]) -> dict[str, Any]:
    """Return the fields of logprobs, for tokens so far."""
    chosen = [[logprob, id_, None] for id_, logprob in logprobs]
    return {
        "input_token_logprobs": [],
        "output_token_logprobs": chosen,
        "output_token_logprobs_length": len(chosen),
        "input_top_logprobs": [],
        "output_top_logprobs": [[each] for each in chosen],
    }


def read(asked: Continuation, *answers: dict[str, Any]) -> list[AnswerPart]:
    reader = SglangServer().reader("http://a", asked)
    return [reader.part(json.dumps(each).encode()) for each in answers]


def test_new_tokens_are_found_in_parts_with_all_tokens_and_in_parts_with_new_ones() -> None:
    whole = read(ASKED, part(" Paris", [PARIS], 1), part(" Paris.", [PARIS, DOT, END], 3, STOP))
    new = read(ASKED, part(" Paris", [PARIS], 1), part(".", [DOT, END], 3, STOP))
    expected = [
        AnswerPart([Token(PARIS)], None, 4, text=" Paris"),
        AnswerPart([Token(DOT), Token(END)], FinishReason.STOP, 4, text="."),
    ]
    assert (whole, new) == (expected, expected)


def test_logprobs_belong_to_the_new_tokens() -> None:
    asked = Continuation(ASKED.prompt, 2, NEUTRAL, top_logprobs=1, ends=[END])
    length, one, other = {"type": "length", "length": 2}, (PARIS, -0.25), (DOT, -0.375)
    whole = read(asked, part("", [PARIS], 1, **likely(one)), part("", [PARIS, DOT], 2, length, **likely(one, other)))
    new = read(asked, part("", [PARIS], 1, **likely(one)), part("", [DOT], 2, length, **likely(other)))
    expected = [
        AnswerPart([Token(PARIS, TokenLogprobs(-0.25, ((PARIS, -0.25),)))], None, 4),
        AnswerPart([Token(DOT, TokenLogprobs(-0.375, ((DOT, -0.375),)))], FinishReason.LENGTH, 4),
    ]
    assert (whole, new) == (expected, expected)


@pytest.mark.parametrize(
    ("backend", "syntax"),
    [
        ("xgrammar", Syntax.EBNF),
        ("llguidance", Syntax.LARK),
        ("outlines", Syntax.NONE),
        ("none", Syntax.NONE),
        ("", Syntax.EBNF),
    ],
)
def test_backend_of_grammars_decides_their_syntax(backend: str, syntax: Syntax) -> None:
    assert SglangServer(backend).syntax is syntax


REFUSED = {
    "event": plays(HEAD, event({"error": {"message": "min_p is wrong", "code": 400, "retryable": False}}), DONE),
    "end": plays(
        HEAD,
        event(part("-", [29], 1, {"type": "abort", "message": "Failed to compile ebnf grammar", "status_code": 400})),
        DONE,
    ),
    "status": status(400, b'{"error":{"message":"The input (3000 tokens) is longer than the context length"}}'),
    "unknown field": status(400, b'{"error":"unknown field `foo`, expected one of `max_new_tokens`"}'),
}


async def ids(play: Play) -> list[int]:
    """Return the tokens of an answer."""
    server, found = SglangServer(), list[int]()
    async with trio.open_nursery() as nursery:
        upstream = ScriptedUpstream([play])
        await nursery.start(upstream.serve)
        client = UpstreamClient(Address.of(upstream.url), TIMEOUTS)
        try:
            async with client.request("POST", server.target(client.address), b"{}") as answer:
                parts = AnswerParts(upstream.url, answer, server.reader(upstream.url, ASKED))
                while (found_part := await parts.next()) is not None:
                    found += [each.id for each in found_part.tokens]
        finally:
            await client.close_idle()
            nursery.cancel_scope.cancel()
    return found


@pytest.mark.parametrize("name", REFUSED)
async def test_refusals_are_those_of_a_status_of_400(name: str) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(UpstreamFault, check=lambda fault: fault.kind == "http_400")):
        await ids(REFUSED[name])


@pytest.mark.parametrize("grows", [True, False])
async def test_long_answer_may_repeat_its_text_but_not_fall_silent(
    grows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit, size = 1 << 20, 1 << 16
    monkeypatch.setattr(parts, "MAX_ANSWER_BYTES", limit)
    texts = [event(part("x" * size, [PARIS], number if grows else 1)) for number in range(1, limit // size + 3)]
    play = plays(HEAD, *texts, event(part("", [PARIS], len(texts) + 1, STOP)), DONE)
    if grows:
        assert len(await ids(play)) == len(texts) + 1
    else:
        with pytest.RaisesGroup(pytest.RaisesExc(UpstreamFault, match="bytes without a token")):
            await ids(play)
