"""The budget of a token: from times of two programs to stages."""

from typing import Any

import pytest
from record import Record
from token_budget import budget, budget_table
from token_budget.server_times import ClockOffset, clock_of

RECEIVED = 1000.0


def columns(*tokens: tuple[float | None, ...]) -> dict[str, list[Any]]:
    names = ("decoding", "decoded", "sampled", "handed_over", "encoded", "written", "event")
    return {name: list(column) for name, column in zip(names, zip(*tokens, strict=True), strict=True)}


def record(ahead: float = 0.0) -> Record:
    """Return a request of four tokens, two of them of one step, and one without a frame of its own. The client's clock
    is ahead of the server's by some seconds."""
    server = {
        "received": RECEIVED,
        "admitted": 0.002,
        "prefill_begun": 0.003,
        "prefill_done": 0.053,
        "tokens": columns(
            (0.003, 0.053, 0.054, 0.056, 0.057, 0.058, 4),
            (0.055, 0.065, 0.066, 0.067, 0.068, 0.069, 6),
            (0.055, 0.065, 0.066, 0.067, 0.068, 0.069, 6),
            (0.067, 0.075, 0.076, 0.078, None, None, None),
        ),
    }
    client = {
        "start": RECEIVED + ahead - 0.001,
        "numbers": [0, 1, 2, 3, 4, 5, 6, 7],
        "times": [0.004, 0.004, 0.061, 0.061, 0.061, 0.071, 0.071, 0.08],
        "parse": [0.0001] * 8,
    }
    return Record(server_times={"server": server, "client": client})


def means(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {row["stage"]: row["mean_ms"] for row in rows}


def test_budget_of_one_clock_adds_up_to_the_times_between_arrivals() -> None:
    found = budget([record()])
    assert found is not None
    assert {name: value for name, value in found.items() if not isinstance(value, list)} == {
        "requests": 1,
        "tokens": 3,
        "clock": "shared",
        "clock_error_ms": 1.5,
    }
    assert means(found["token"]) == {
        "wait": 0.5,
        "decode": 5.0,
        "sample": 0.5,
        "hand-over": 0.5,
        "encode": 0.5,
        "send": 0.5,
        "network": 0.5,
        "client": 0.05,
    }
    assert means(found["first_token"]) == {
        "connect": 1.0,
        "prepare": 2.0,
        "queue": 1.0,
        "prefill": 50.0,
        "sample": 1.0,
        "hand-over": 2.0,
        "encode": 1.0,
        "send": 1.0,
        "network": 2.0,
        "client": 0.1,
    }
    assert sum(means(found["first_token"]).values()) - 0.1 == pytest.approx(61)  # the time of the first delta


@pytest.mark.parametrize(
    ("ahead", "expected"),
    [
        (0.0, ClockOffset(0.0, 0.0015)),
        (0.0005, ClockOffset(0.0, 0.0015)),
        (5.0, ClockOffset(5.0005, 0.0015)),
        (-5.0, ClockOffset(-4.9995, 0.0015)),
    ],
)
def test_clocks_are_aligned_unless_one_clock_explains_all_times(ahead: float, expected: ClockOffset) -> None:
    """Without an offset, requests arrive after they were sent, and events after their frames were made."""
    found = clock_of([record(ahead)])
    assert [found.offset, found.error] == pytest.approx([expected.offset, expected.error])


def test_budget_of_two_clocks_moves_time_between_connect_and_network() -> None:
    found = budget([record(5.0)])
    assert found is not None
    assert found["clock"] == "aligned"
    stages = means(found["first_token"])
    assert stages["connect"] == pytest.approx(1.5)
    assert stages["network"] == pytest.approx(1.5)
    assert "two clocks, aligned to 1.5 ms" in budget_table(found)


def test_budget_of_bytes_read_before_the_call_returned_has_no_negative_network() -> None:
    early = record()
    assert early.server_times is not None
    early.server_times["client"]["times"] = [0.004, 0.004, 0.0585, 0.0585, 0.0585, 0.0695, 0.0695, 0.08]
    found = budget([early])
    assert found is not None
    assert found["clock"] == "shared"
    assert means(found["token"])["send"] == 0.25
    assert means(found["token"])["network"] == 0.0


def test_budget_without_the_servers_times_is_none() -> None:
    assert budget([Record()]) is None


def test_budget_table_has_shares() -> None:
    found = budget([record()])
    assert found is not None
    lines = budget_table(found).splitlines()
    assert lines[0] == "times of 3 tokens of 1 request by the server; the server and the bench read one clock"
    assert lines[4] == "decode                      1     5.000  62.1%     5.000     5.000  decode begun - decoded"
