"""Groups of answers that are counted together, and the sizes that the user may choose."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from answer import between, parse
from client import Recording, WireRequest
from load import Lengths
from measures import Group
from record import Record
from target import Target
from texts import Texts

Groups: TypeAlias = dict[str, Group]

QUESTION_WORDS = 12
INSTRUCTION_WORDS = 450
"""Words of the instructions: 600 tokens in the style of `texts`."""
LONG_WORDS = 1500
"""Words of the long prompt: 2,000 tokens."""
SHORT_ANSWER = 16
"""Maximum tokens of a short answer."""


@dataclass(slots=True, frozen=True)
class Size:
    """The flags for `single`, `concurrent`, `constrained`, `forms` and loads; the other scenarios have fixed sizes."""

    concurrency: int
    requests: int
    tokens: int
    words: int
    lengths: Lengths
    restarts: bool = False
    """True if `rotation` restarts the server."""
    idle: int = 200
    """Idle connections of `idle-connections`."""


def group(recordings: Sequence[Recording], measures: tuple[str, ...] | None = None) -> Group:
    """Return the group of these recordings."""
    counted = Group([parse(recording) for recording in recordings], wall_seconds(recordings))
    if measures is not None:
        counted.measures = measures
    return counted


def has_delta(recording: Recording) -> bool:
    """True if a response has begun to generate, in any of the APIs."""
    return bool(parse(recording).deltas)


def small_request(target: Target, texts: Texts) -> WireRequest:
    """Return a request with a short question and a short answer."""
    return target.request(texts.prompt(QUESTION_WORDS), SHORT_ANSWER)


def wall_seconds(recordings: Iterable[Recording]) -> float:
    """Return the time from the first start to the last read; 0 without recordings, as after an interrupt."""
    last = max((recording.reads[-1][0] for recording in recordings if recording.reads), default=0.0)
    return max(0.0, last - min((recording.start for recording in recordings), default=last))


def slices(streams: Sequence[Recording], records: Sequence[Record], begin: float, end: float) -> list[Record]:
    """Return the records' deltas between two times of the clock."""
    pairs = zip(streams, records, strict=True)
    return [between(record, begin - stream.start, end - stream.start) for stream, record in pairs]
