"""The status as text for a terminal."""

import pytest
from msgspec.structs import replace

from server.live_view.text import ASCII, BLOCKS, bars, duration, lines, size
from server.monitoring.latencies import LatencyStatus, Percentiles
from server.monitoring.status_body import CacheStatus, EndedAnswer, MemoryStatus, RunningStream, Status, StatusModel

DECODE = RunningStream(
    "resp_12345678", "laptop", "/v1/responses", "stream", "interactive", "decode",
    12.0, 0.1, 0.25, 1200, 300, 1200, 64, 512, 21.5, (0.01, 0.02, 0.08),
)  # fmt: skip
PREFILL = RunningStream(
    "resp_23456789", "batch", "/v1/chat/completions", "whole", "batch", "prefill",
    3.0, 0.1, None, 4000, 0, 1000, 0, 64, 0.0, (),
)  # fmt: skip
QUEUED = RunningStream(
    "resp_34567890", "laptop", "/v1/responses", "stream", "interactive", "queued",
    1.5, 1.5, None, 30, 0, 0, 0, 64, 0.0, (),
)  # fmt: skip
ENDED = EndedAnswer(
    "resp_45678901", 4.2, "laptop", "/v1/responses", "stream", "interactive", "completed",
    0.0, 0.118, 2.0, 84, 61, 16, 65, 98.2, "evicted", "",
)  # fmt: skip
CHANGED = EndedAnswer(
    "resp_56789012", 130.0, "batch", "/v1/responses", "whole", "batch", "incomplete (max_output_tokens)",
    0.0, None, 2.0, 1840, 12, 0, 64, 0.0, "input_changed", "in `instructions`, 16 characters in",
)  # fmt: skip
STATUS = Status(
    "1.2",
    7300.0,
    StatusModel("smollm2", "llamacpp", 8192, ""),
    slots=2,
    running=2,
    waiting=1,
    queue_limit=16,
    generated_tokens=1000,
    streams=(DECODE, PREFILL, QUEUED),
    latency=LatencyStatus(
        300, 5, Percentiles(2, 0.25, None, None, 1.5), Percentiles(2051, 0.0095, 0.019, 0.4, 12.0), ()
    ),
    cache=CacheStatus(2000, 500, 16, {"evicted": 1}, 4_000_000, 16_000_000, 3),
    memory=MemoryStatus(594_000_000, 135_000_000, 97_000_000),
    store=None,
    answers=(ENDED, CHANGED),
)
TEXT = """\
responsed 1.2 | smollm2 (llamacpp) | 8,192 tokens of context | up 2 h
slots 2/2 | waiting 1/16 | 21.5 tokens/s | 25% of prompts cached | memory 594 MB, 459 MB of its own

                           n  median    p95     p99    max
first token, 5 min         2  250 ms      -       -  1.5 s
between tokens, 5 min  2,051  9.5 ms  19 ms  400 ms   12 s

STATE    CLIENT  ROUTE                       PROMPT  CACHED  OUTPUT    TTFT  TOKENS/S  LATEST TOKENS
decode   laptop  /v1/responses                1,200     25%      64  250 ms      21.5  ▂▃█
prefill  batch   /v1/chat/completions  25% of 4,000      0%       0       -         -
queued   laptop  /v1/responses                   30       -       0       -         -  waiting for 1.5 s

    ENDED  CLIENT  OUTCOME                         PROMPT  CACHED  OUTPUT    TTFT  TOKENS/S  WHY THE CACHE MISSED
4.2 s ago  laptop  completed                           84     73%      65  118 ms      98.2  evicted
2 min ago  batch   incomplete (max_output_tokens)   1,840      1%      64       -         -  input_changed, in \
`instructions`, 16 characters in
"""


def test_lines_of_a_busy_server_are_tables() -> None:
    assert "".join(f"{line}\n" for line in lines(STATUS, 200, 100)) == TEXT


NOTHING = """\
responsed 1.2 | smollm2 (llamacpp) | 8,192 tokens of context | up 2 h
slots 0/2 | waiting 0/16 | 0.0 tokens/s | 25% of prompts cached | memory 594 MB, 459 MB of its own

No tokens in the last 5 minutes.

No requests are running.

No request has ended yet.
"""


def test_lines_of_an_idle_server_are_sentences() -> None:
    none = Percentiles(0, None, None, None, None)
    latency = replace(STATUS.latency, ttft=none, itl=none)
    idle = replace(STATUS, running=0, waiting=0, streams=(), answers=(), latency=latency)
    assert "".join(f"{line}\n" for line in lines(idle, 200, 100)) == NOTHING


def test_lines_are_cut_to_the_terminal() -> None:
    found = lines(STATUS, 40, 13)
    assert max(map(len, found)) <= 40
    assert len(found) == 14
    assert found[-1].startswith("4.2 s ago  laptop  completed")


@pytest.mark.parametrize(
    ("gaps", "blocks", "expected"),
    [([], BLOCKS, ""), ([0.0], BLOCKS, "▁"), ([1.0, 8.0], BLOCKS, "▂█"), ([1.0, 8.0], ASCII, "_#")],
)
def test_bars_are_as_high_as_the_gaps_are_long(gaps: list[float], blocks: str, expected: str) -> None:
    assert bars(gaps, blocks) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, "-"), (0.0042, "4.2 ms"), (0.25, "250 ms"), (1.5, "1.5 s"), (60, "60 s"), (300, "5 min"),
        (7300, "2 h"),
    ],
)  # fmt: skip
def test_duration_has_the_unit_of_its_size(seconds: float | None, expected: str) -> None:
    assert duration(seconds) == expected


def test_size_is_in_megabytes_or_gigabytes() -> None:
    assert (size(97_000_000), size(4_000_000_000)) == ("97 MB", "4.0 GB")
