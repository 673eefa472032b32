"""A generation by chat completions: the job, its outputs, and their conversion to stream inputs. Pure."""

from collections.abc import Mapping
from typing import TypeAlias

from msgspec import Struct

from engine.job import Lane
from server.postprocessing import UpstreamTrace
from server.protocol.events import PromptProgress
from server.protocol.response import Usage, counted_usage
from server.stream import End, StreamInput, ToolCallStarted, failure
from server.upstream.chat.chunks import ReportedUsage
from server.upstream.chat.output_checks import OutputChecks
from server.upstream.transport import AttemptBegun, AttemptsFailed, FirstDelta

MAX_COUNT = 1 << 31
"""More tokens than any answer has."""


class ChatJob(Struct, frozen=True, kw_only=True):
    body: bytes
    """Body of the request to the upstream."""
    max_tokens: int
    """Limit of generated tokens. With 0 tokens the upstream is not asked."""
    lane: Lane
    affinity: str
    """Conversations of one name go to one upstream, whose cache has their prefix."""
    fronts: tuple[str, ...]
    """Names of the fronts that the request has passed."""
    calls: Mapping[str, ToolCallStarted]
    """Start of a call by the name of its function."""
    parallel: bool = True
    checks: OutputChecks = OutputChecks()


class Deltas(Struct, frozen=True):
    """The next part of the answer."""

    inputs: tuple[StreamInput, ...]
    tokens: int
    """Tokens so far, of which there may be more than the upstream's deltas."""
    reasoning_tokens: int = 0


class Answered(Struct, frozen=True):
    """The answer is complete."""

    usage: ReportedUsage | None
    incomplete: str | None = None
    """Reason for which the answer is incomplete."""
    stop: str | None = None


ChatOutput: TypeAlias = AttemptBegun | FirstDelta | Deltas | Answered | AttemptsFailed


class ChatProcessor:
    """Processor of the outputs of one job. Counts of tokens are estimates until the upstream reports its usage."""

    def __init__(self, prompt_tokens: int) -> None:
        self._prompt_tokens = prompt_tokens
        self._cached = 0
        self._reasoned = 0
        self._has_output = False
        self.upstream: UpstreamTrace | None = None
        self.started = False
        self.ended = False
        self.output_tokens = 0

    @property
    def pending_prompt_tokens(self) -> int:
        return 0 if self.output_tokens else self._prompt_tokens

    @property
    def progress(self) -> PromptProgress | None:
        """Return nothing: an upstream does not report its progress."""
        return None

    @property
    def usage(self) -> Usage:
        return counted_usage(self._prompt_tokens, self._cached, self.output_tokens, self._reasoned)

    def process(self, output: ChatOutput, now: int) -> list[StreamInput]:
        """Return the stream inputs for an output. Raises the error of a job that failed without any output."""
        if self.ended:
            return []
        match output:
            case AttemptBegun():
                self.started = True
                return []
            case FirstDelta(trace):
                self.upstream = trace
                return []
            case Deltas(inputs, tokens, reasoned):
                self.output_tokens, self._reasoned = tokens, reasoned
                self._has_output |= bool(inputs)
                return list(inputs)
            case Answered(usage, incomplete, stop):
                if usage is not None:
                    self._count(usage)
                self.started = self.ended = True
                return [End(now, self.usage, incomplete if stop is None else None, stop)]
            case AttemptsFailed(error) if not self._has_output:
                self.started = False  # there is no usage to report
                raise error
            case AttemptsFailed(error):  # what came before it is part of the response
                self.ended = True
                return [failure(error, self.usage)]

    def cut(self, now: int, reason: str) -> list[StreamInput]:
        self.ended = True
        return [End(now, self.usage, reason)]

    def _count(self, usage: ReportedUsage) -> None:
        prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
        self._prompt_tokens = _reported(usage.prompt_tokens, self._prompt_tokens)
        self.output_tokens = _reported(usage.completion_tokens, self.output_tokens)
        cached = _reported(None if prompt is None else prompt.cached_tokens, 0)
        self._cached = min(cached, self._prompt_tokens)
        reasoned = _reported(None if completion is None else completion.reasoning_tokens, self._reasoned)
        self._reasoned = min(reasoned, self.output_tokens)


def _reported(count: int | None, estimate: int) -> int:
    """Return a count of the upstream; the estimate if that is none."""
    return estimate if count is None or not 0 <= count <= MAX_COUNT else count
