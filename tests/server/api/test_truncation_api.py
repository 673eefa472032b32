"""`truncation` over the socket: the turns that stay of a conversation that is too long, and the response's report."""

from pathlib import Path
from typing import Any

import pytest

from engine.backends.scripted import ScriptedModel
from server.prompt import jobs
from tests.server.api.stored.test_stored_responses import msg
from tests.server.prompt.requests import request
from tests.support.helpers import Running, post, served, text

CONTEXT = 40
"""Tokens of the context; a quarter is reserved for the answer."""

TALK = [
    msg("developer", "Be"),
    msg("user", "One"),
    msg("assistant", "1"),
    msg("user", "Two"),
]
LAST = msg("user", "Three")


async def tokens(running: Running, *items: Any, **fields: Any) -> int:
    response = (await post(running, input=items, **fields)).json
    used: int = response["usage"]["input_tokens"]
    return used


@pytest.mark.parametrize(
    ("fields", "max_tokens"),
    [
        ({}, None),
        ({"truncation": "disabled"}, None),
        ({"truncation": "auto"}, 4096 - 256),
        ({"truncation": "auto", "max_output_tokens": 50}, 4096 - 50),
    ],
)
def test_max_prompt_tokens_follow_truncation(fields: dict[str, Any], max_tokens: int | None) -> None:
    assert jobs.max_prompt_tokens(request(**fields), 4096) == max_tokens


@pytest.mark.parametrize("stream", [True, False])
async def test_truncation_auto_drops_oldest_turns(stream: bool) -> None:
    async with served(ScriptedModel(n_ctx=CONTEXT)) as running:
        for long in (TALK, [*TALK, msg("assistant", "Four" * 5)]):
            answer = await post(running, input=[*long, LAST], truncation="auto", instructions="I", stream=stream)
            response = answer.events[-1]["response"] if stream else answer.json
            assert (response["status"], response["truncation"]) == ("completed", "auto")
            left = [LAST] if len(long) > len(TALK) else [*TALK[1:], LAST]
            assert response["usage"]["input_tokens"] == await tokens(running, TALK[0], *left, instructions="I")
            assert text(response) == "Three"


@pytest.mark.slow
async def test_truncation_by_default_is_disabled() -> None:
    long = [*TALK, msg("assistant", "Four" * 5), LAST]
    async with served(ScriptedModel(n_ctx=CONTEXT)) as running:
        for settings in ({}, {"truncation": None}, {"truncation": "disabled"}):
            refused = await post(running, input=long, **settings)
            assert (refused.status, refused.json["error"]["code"]) == (400, "context_length_exceeded")
            short = await post(running, input=TALK, **settings)
            assert (short.json["truncation"], short.text) == ("disabled", "Two")


async def test_truncation_auto_with_too_long_turn_is_rejected() -> None:
    async with served(ScriptedModel(n_ctx=CONTEXT)) as running:
        refused = await post(running, input=[*TALK, msg("user", "x" * CONTEXT)], truncation="auto")
        error = refused.json["error"]
        assert (refused.status, error["code"], error["param"]) == (400, "context_length_exceeded", "input")
        # It may use the space of the answer except for one token.
        almost = [*TALK, msg("user", "x" * (CONTEXT - len("<Be<<") - 1))]
        assert (await post(running, input=almost, truncation="auto")).text == "x"


@pytest.mark.slow
async def test_truncation_auto_continues_chain_beyond_context(tmp_path: Path) -> None:
    async with served(ScriptedModel(n_ctx=CONTEXT), state=tmp_path) as running:
        last: dict[str, Any] = {"id": None}
        for n in range(12):
            answer = await post(running, input=f"Turn {n:02}", previous_response_id=last["id"], truncation="auto")
            last = answer.json
            assert (last["status"], text(last)) == ("completed", f"Turn {n:02}")
        assert last["usage"]["input_tokens"] == len("<Turn 11<")
        refused = await post(running, input="And?", previous_response_id=last["id"])
        assert refused.json["error"]["code"] == "context_length_exceeded"


@pytest.mark.slow
async def test_truncation_auto_fits_very_long_conversation() -> None:
    talk = [msg("user", f"{n:07}") for n in range(2500)]
    async with served(ScriptedModel(n_ctx=1024)) as running:
        answer = await post(running, input=talk, truncation="auto")
        assert answer.text == "0002499"
        # 8 tokens a turn, and one that begins the answer
        assert (1024 - 256) * 3 // 4 <= answer.json["usage"]["input_tokens"] <= 1024 - 256
