"""`server.generation.summary`: pauses between jobs are no time of a slot."""

import pytest
from msgspec.structs import replace

from server.generation.summary import EarlierPrompt, GenerationSummary, Origin, summarize
from server.generation.timings import SlotTime, Timings
from server.protocol.response import InputTokensDetails, OutputTokensDetails, Response, Usage

RESPONSE = Response(id="resp_x", created_at=1, model="m", temperature=0.8, top_p=0.95, status="completed")


def test_slot_time_is_that_of_all_jobs_without_pauses() -> None:
    slot = SlotTime()
    assert slot.seconds(5) == 0
    slot.begin(10, full=False)
    assert slot.seconds(12) == 2
    slot.end(13)
    assert slot.seconds(100) == 3
    slot.begin(100, full=True)  # it waits for a slot
    assert slot.seconds(150) == 3
    slot.arrived(160)
    slot.arrived(170)
    assert slot.seconds(180) == 23
    slot.end(190)
    assert slot.seconds(500) == 33


def test_pause_of_a_call_is_no_gap_between_tokens() -> None:
    timings = Timings(0)
    for now in (2, 3, 4):
        timings.record(now, 1, has_tokens=True)
    timings.end_job(tools=100)
    for now in (105, 107):
        timings.record(now, 104, has_tokens=True)
    summary = summarized(timings, tokens=12, now=107)
    assert (summary.gaps, summary.jobs, summary.tools) == ([1, 1, 2], 2, 100)
    assert (summary.queue, summary.first_token, summary.duration) == (1, 2, 107)
    assert summary.tokens_per_second == (12 - 2) / 4


def test_approved_call_is_no_time_in_the_queue() -> None:
    timings = Timings(0)
    timings.end_job(tools=60)
    timings.record(63, 62, has_tokens=False)
    timings.record(65, 62, has_tokens=True)
    summary = summarized(timings, tokens=1, now=65)
    assert (summary.queue, summary.first_token, summary.tools, summary.duration) == (2, 5, 60, 65)
    assert ": queue 2000 ms, tools 60000 ms, first token 5000 ms, in" in summary.line()


def test_call_that_is_cancelled_is_no_time_in_the_queue() -> None:
    timings = Timings(0)
    timings.end_job(tools=60)
    assert summarized(timings, tokens=0, now=61).queue == pytest.approx(1)


def summarized(timings: Timings, tokens: int, now: float) -> GenerationSummary:
    usage = Usage(1, InputTokensDetails(0, 0), tokens, OutputTokensDetails(0), 1 + tokens)
    origin = Origin("req_1", "ann", "/v1/responses")
    response = replace(RESPONSE, usage=usage)
    return summarize(response, origin, timings, "whole", "", EarlierPrompt(), now)
