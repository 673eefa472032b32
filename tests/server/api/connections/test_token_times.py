"""`return_token_times`: the server's times of each token in the terminal response."""

from pathlib import Path
from typing import Any

import pytest

from engine.backends.scripted import ScriptedModel
from tests.support.helpers import get, post, served
from tests.support.websockets import SocketClient

ANSWER = "Hello"
FIRST_DELTA = 4
"""Sequence number of the first delta: it follows created, in_progress, output_item.added and content_part.added."""
STAGES = ("decoding", "decoded", "sampled", "handed_over", "encoded", "written")


def model() -> ScriptedModel:
    return ScriptedModel(lambda message: ANSWER.encode(), seconds_per_token=0.03)


def times_of(response: dict[str, Any]) -> dict[str, Any]:
    return dict(response["responsed"]["token_times"])


def check_order(times: dict[str, Any], stages: tuple[str, ...]) -> None:
    """Check that each token passes the stages in their order, after the token before it."""
    assert 0 <= times["admitted"] <= times["prefill_begun"] < times["prefill_done"]
    paths = list(zip(*(times["tokens"][stage] for stage in stages), strict=True))
    assert len(paths) == len(ANSWER)
    assert all(path == tuple(sorted(path)) for path in paths)
    assert paths == sorted(paths)


async def test_stream_has_the_times_of_each_token(tmp_path: Path) -> None:
    async with served(model(), state=tmp_path, token_times=True) as running:
        events = (await post(running, input="Hi", stream=True, return_token_times=True)).events
        times = times_of(events[-1]["response"])
        check_order(times, STAGES)
        assert times["tokens"]["event"] == list(range(FIRST_DELTA, FIRST_DELTA + len(ANSWER)))
        assert [event["delta"] for event in events if event["sequence_number"] in times["tokens"]["event"]] == [*ANSWER]
        assert "responsed" not in events[0]["response"]
        assert "responsed" not in (await get(running, f"/v1/responses/{events[-1]['response']['id']}")).json


async def test_answer_in_one_piece_has_no_times_of_frames() -> None:
    async with served(model(), token_times=True) as running:
        times = times_of((await post(running, input="Hi", return_token_times=True)).json)
    check_order(times, STAGES[:4])
    assert times["tokens"]["encoded"] == times["tokens"]["written"] == [None] * len(ANSWER)


async def test_messages_of_a_websocket_have_the_times_of_each_token() -> None:
    async with served(model(), token_times=True) as running, await SocketClient.to(running) as client:
        await client.create(input="Hi", return_token_times=True)
        events = await client.stream()
    times = times_of(events[-1]["response"])
    check_order(times, STAGES)
    assert times["tokens"]["event"] == list(range(FIRST_DELTA, FIRST_DELTA + len(ANSWER)))


@pytest.mark.parametrize(
    ("setting", "fields", "expected"),
    [
        (False, {"return_token_times": True}, {"skipped": ["return_token_times"]}),
        (False, {}, None),
        (True, {"return_token_times": False}, None),
        (True, {}, None),
    ],
)
async def test_response_without_setting_or_field_has_no_times(
    setting: bool, fields: dict[str, bool], expected: dict[str, Any] | None
) -> None:
    async with served(model(), token_times=setting) as running:
        assert (await post(running, input="Hi", **fields)).json.get("responsed") == expected
