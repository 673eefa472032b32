"""Admission control: requests up to the number of slots and of places in the queue. Pure.

Further requests get a 503 before any prompt is evaluated; Codex does not retry after a 429. Each lane has a queue of
its own, so that batch jobs never take the last place from an interactive client.
"""

import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence

from msgspec import Struct

from engine.job import Lane
from engine.scheduler import EngineStats
from engine.wording import counted
from server.access import Caller
from server.protocol.errors import ServerBusy

RECENT_GENERATIONS = 16
"""Number of latest generations whose tokens estimate the next ones."""

MAX_RETRY_SECONDS = 120
"""Largest `Retry-After` in seconds; openai-python 3.52 ignores larger ones."""

TYPICAL_OUTPUT_TOKENS = 256
"""Tokens of an answer before any has ended by itself."""
TYPICAL_WEIGHT = 4
"""Weight of the typical answer in the mean, in answers: a single short answer must not promise a slot too early."""

MIN_PACE_TOKENS = 8
"""Minimum number of tokens before a generation's own pace is used."""


class Load(Struct, frozen=True):
    """A generation that has a slot or waits for one."""

    lane: Lane = Lane.INTERACTIVE
    key: str = ""
    started: bool = True
    """True if it has had a slot."""
    prompt_tokens: int = 0
    """Prompt tokens that are not evaluated."""
    output_tokens: int = 0
    """Generated tokens."""
    max_tokens: int = 0
    """Limit of generated tokens."""
    seconds: float = 0.0
    """Time since the first generated token."""

    @property
    def token_seconds(self) -> float | None:
        """Its own seconds per token; None if it has generated few."""
        return self.seconds / self.output_tokens if self.seconds and self.output_tokens >= MIN_PACE_TOKENS else None


class Pace(Struct, frozen=True):
    """Seconds per token, as the engine measures them."""

    prompt_token: float = 0.0
    output_token: float = 0.0


def measured_pace(stats: EngineStats) -> Pace:
    """Return the mean times since the start."""
    prompt = stats.prefill_steps.seconds / max(stats.evaluated_prompt_tokens, 1)
    return Pace(prompt, stats.decode_steps.mean)


class AdmissionControl:
    def __init__(self, slots: int, queue: int) -> None:
        self._slots = slots
        self.queue = queue
        """Requests of each lane that may wait for a slot."""
        self._outputs: deque[int] = deque(maxlen=RECENT_GENERATIONS)

    def record_output(self, tokens: int) -> None:
        """Record the tokens of a generation that ended by itself."""
        self._outputs.append(tokens)

    def has_slot(self, generations: int) -> bool:
        """True if a further request gets a slot at once, beside this number of generations."""
        return generations < self._slots

    def refusal(self, caller: Caller, lane: Lane, loads: Sequence[Load], pace: Callable[[], Pace]) -> ServerBusy | None:
        """Return the error for a further request; None if it has a place. `loads` are in order of arrival.

        `Retry-After` estimates the time until a slot is free for it: until all others have had one.
        """
        present = _of_lane(lane, loads)
        waiting = len(present) - self._slots
        if waiting < 0:
            return None
        queued = self._queued_of(caller, present)
        if waiting < self.queue and (not caller.name or queued < caller.places(self.queue)):
            return None
        if lane is Lane.BATCH:
            present = [*_of_lane(Lane.INTERACTIVE, loads), *present]
        seconds = min(max(math.ceil(self._seconds_until_slot(present, pace())), 1), MAX_RETRY_SECONDS)
        if waiting >= self.queue:
            reason = "queue_full"
            message = f"No slot is free ({counted(self._slots, 'slot')} in use, {counted(waiting, 'request')} waiting)"
        else:
            reason = "key_share"
            message = f"The API key `{caller.name}` has its share of the queue ({counted(queued, 'request')} waiting)"
        return ServerBusy(f"{message}; try again in {seconds} s.", retry_after=seconds, reason=reason)

    def _queued_of(self, caller: Caller, present: Sequence[Load]) -> int:
        """Return the number of the caller's requests that wait. Requests that could start at once do not count."""
        mine = [load for load in present if load.key == caller.name]
        running = max(sum(load.started for load in mine), self._slots - (len(present) - len(mine)))
        return max(len(mine) - running, 0)

    def _seconds_until_slot(self, loads: Sequence[Load], pace: Pace) -> float:
        """Return the time until all generations have had a slot and one is free."""
        known = [load.token_seconds for load in loads if load.token_seconds is not None]
        usual = sum(known) / len(known) if known else pace.output_token
        free_at = [0.0] * self._slots
        for load in sorted(loads, key=lambda load: not load.started):
            token_seconds = usual if load.token_seconds is None else load.token_seconds
            seconds = load.prompt_tokens * pace.prompt_token + self._tokens_left(load) * token_seconds
            heapq.heapreplace(free_at, free_at[0] + seconds)
        return free_at[0]

    def _tokens_left(self, load: Load) -> float:
        """Estimate the tokens that a generation will still produce, up to its limit.

        The estimate is the mean length of the latest ones; a longer generation doubles its present length.
        """
        known = len(self._outputs) + TYPICAL_WEIGHT
        mean = (sum(self._outputs) + TYPICAL_WEIGHT * TYPICAL_OUTPUT_TOKENS) / known
        left = mean - load.output_tokens if load.output_tokens < mean else load.output_tokens
        return min(load.max_tokens - load.output_tokens, left)


def _of_lane(lane: Lane, loads: Sequence[Load]) -> list[Load]:
    return [load for load in loads if load.lane is lane]
