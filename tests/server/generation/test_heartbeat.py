"""Signs of life come when they are due, and not oftener."""

import math

import pytest

from engine.backends import scripted
from engine.job import EngineOutput, Progress, Started
from server.generation.heartbeat import Heartbeat
from server.protocol.events import PromptProgress
from server.stream.inputs import InProgress, StreamInput
from server.stream.machine import State
from server.stream.output_processor import OutputProcessor

PROMPT = 100


def told(evaluated: int, time_ms: int) -> list[StreamInput]:
    return [InProgress(PromptProgress(PROMPT, 10, evaluated, time_ms))]


# (seconds, state, what arrives then, what is told)
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
TELLING: list[Moment] = [
    (0.5, State.RUNNING, Started(10), []),
    (1.0, State.RUNNING, Progress(20), told(20, 500)),
    (1.9, State.RUNNING, Progress(30), []),
    (2.0, State.RUNNING, Progress(40), told(40, 1500)),
    (5.0, State.RUNNING, None, []),
    (12.0, State.RUNNING, None, told(40, 11500)),
    (12.9, State.RUNNING, Progress(50), []),
    (13.0, State.RUNNING, Progress(60), told(60, 12500)),
    (99.0, State.WRITING, None, []),
]


@pytest.mark.parametrize(("tells", "moments"), [(False, QUIET), (False, WAITING), (True, TELLING)])
def test_a_sign_comes_when_it_is_due(tells: bool, moments: list[Moment]) -> None:
    pulse, answer = Heartbeat(10.0, tells, 0.0), OutputProcessor(scripted.vocabulary(), PROMPT, ())
    for now, state, piece, expected in moments:
        assert piece is None or answer.process(piece, 0) == []
        assert (now, pulse.due_events(state, answer, now)) == (now, expected)


def test_without_a_heartbeat_there_is_none() -> None:
    pulse, answer = Heartbeat(0.0, False, 0.0), OutputProcessor(scripted.vocabulary(), PROMPT, ())
    assert pulse.due(State.RUNNING) == math.inf
    assert pulse.due_events(State.RUNNING, answer, 1e9) == []
