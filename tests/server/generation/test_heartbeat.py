"""Schedule of heartbeat events."""

import math

import pytest

from engine.backends import scripted
from engine.job import EngineOutput, Progress, Started
from server.generation.heartbeat import Heartbeat
from server.postprocessing.output_processor import OutputProcessor
from server.protocol.events import PromptProgress
from server.stream.inputs import InProgress, StreamInput
from server.stream.machine import State

PROMPT = 100


def progress(evaluated: int, time_ms: int) -> list[StreamInput]:
    return [InProgress(PromptProgress(PROMPT, 10, evaluated, time_ms))]


# (seconds, state, arriving output, expected events)
Moment = tuple[float, State, EngineOutput | None, list[StreamInput]]
QUIET: list[Moment] = [
    (9.9, State.RUNNING, None, []),
    (10.0, State.RUNNING, None, [InProgress()]),
    (12.0, State.RUNNING, Progress(50), []),
    (19.9, State.RUNNING, None, []),
    (20.0, State.RUNNING, None, [InProgress()]),
    (31.0, State.WRITING, None, []),
]
WAITING: list[Moment] = [
    (3.0, State.QUEUED, None, []),
    (3.1, State.QUEUED, Started(10), [InProgress()]),
    (13.0, State.RUNNING, None, []),
    (13.1, State.RUNNING, None, [InProgress()]),
]
REPORTING: list[Moment] = [
    (0.5, State.RUNNING, Started(10), []),
    (1.0, State.RUNNING, Progress(20), progress(20, 500)),
    (1.9, State.RUNNING, Progress(30), []),
    (2.0, State.RUNNING, Progress(40), progress(40, 1500)),
    (5.0, State.RUNNING, None, []),
    (12.0, State.RUNNING, None, progress(40, 11500)),
    (12.9, State.RUNNING, Progress(50), []),
    (13.0, State.RUNNING, Progress(60), progress(60, 12500)),
    (99.0, State.WRITING, None, []),
]


@pytest.mark.parametrize(("reports", "moments"), [(False, QUIET), (False, WAITING), (True, REPORTING)])
def test_heartbeat_events_come_when_due(reports: bool, moments: list[Moment]) -> None:
    heartbeat, processor = Heartbeat(10.0, reports, 0.0), OutputProcessor(scripted.vocabulary(), PROMPT, ())
    for now, state, output, expected in moments:
        assert output is None or processor.process(output, 0) == []
        assert (now, heartbeat.due_events(state, processor, now)) == (now, expected)


def test_heartbeat_of_zero_seconds_sends_none() -> None:
    heartbeat, processor = Heartbeat(0.0, False, 0.0), OutputProcessor(scripted.vocabulary(), PROMPT, ())
    assert heartbeat.due(State.RUNNING) == math.inf
    assert heartbeat.due_events(State.RUNNING, processor, 1e9) == []
