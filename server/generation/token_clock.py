"""Times of one response whose request asks for them. All are in seconds of `time.perf_counter`. Pure."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from engine.job import EngineOutput, StepTimes, Token
from server.protocol.response import Response, Times, TokenColumns, TokenTimes, with_facts


class TokenClock:
    """Times of each token, in the order in which it passes the stages; so each stage has at most as many as the one
    before."""

    def __init__(self, received: float, admitted: float) -> None:
        self._received = received
        self._admitted = admitted
        self._prefill_begun: float | None = None
        self._step: StepTimes | None = None
        self._steps: list[StepTimes] = []
        """Step of each token."""
        self._handed_over: list[float] = []
        self._events: list[int] = []
        self._encoded: list[float] = []
        self._written: list[float] = []

    def handed_over(self, outputs: Iterable[EngineOutput], now: float) -> None:
        """Record outputs of the engine that have arrived in the event loop."""
        for output in outputs:
            if isinstance(output, StepTimes):
                self._step = output
                if self._prefill_begun is None:
                    self._prefill_begun = output.begun
            elif isinstance(output, Token) and self._step is not None:
                self._steps.append(self._step)
                self._handed_over.append(now)

    def emitted(self, number: int) -> None:
        """Record that the tokens so far have led to the events up to `number`. A token whose text waits for the next
        one leads to no event of its own."""
        if number > (self._events[-1] if self._events else -1):
            self._events += [number] * (len(self._steps) - len(self._events))

    def encoded(self, number: int, now: float) -> None:
        """Record that the frames of the events up to `number` are made."""
        self._pass(self._encoded, number, now)

    def written(self, number: int, now: float) -> None:
        """Record that the kernel has the frames of the events up to `number`."""
        self._pass(self._written, number, now)

    def _pass(self, times: list[float], number: int, now: float) -> None:
        times += [now] * (bisect_right(self._events, number) - len(times))

    def added_to(self, response: Response) -> Response:
        """Return the response with the times so far."""
        return with_facts(response, token_times=self.times())

    def times(self) -> TokenTimes:
        """Return the times so far."""
        return TokenTimes(
            received=round(self._received, 6),
            admitted=self._since(self._admitted),
            prefill_begun=None if self._prefill_begun is None else self._since(self._prefill_begun),
            prefill_done=self._since(self._steps[0].decoded) if self._steps else None,
            tokens=TokenColumns(
                self._column([step.begun for step in self._steps]),
                self._column([step.decoded for step in self._steps]),
                self._column([step.sampled for step in self._steps]),
                self._column(self._handed_over),
                self._column(self._encoded),
                self._column(self._written),
                (*self._events, *[None] * (len(self._steps) - len(self._events))),
            ),
        )

    def _column(self, times: Sequence[float]) -> Times:
        return (*map(self._since, times), *[None] * (len(self._steps) - len(times)))

    def _since(self, moment: float) -> float:
        return round(moment - self._received, 6)
