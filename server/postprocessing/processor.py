"""The output of one job as the generation sees it: any outputs in, stream inputs and the usage out."""

from typing import Any, Protocol

from msgspec import Struct

from server.protocol.events import PromptProgress
from server.protocol.response import Usage
from server.stream import StreamInput


class UpstreamTrace(Struct, frozen=True):
    """The route of a job to another server."""

    url: str
    seconds: float
    """From the request to the first delta, or to the end without one; without failed attempts."""
    attempts: int


class Processor(Protocol):
    """Converter of the outputs of one job to stream inputs, with a count of the usage.

    The generator that runs the job has a processor of its own: `OutputProcessor` for the tokens of the engine.
    """

    @property
    def started(self) -> bool:
        """True once the job has a slot."""

    @property
    def ended(self) -> bool:
        """True after the last input."""

    @property
    def output_tokens(self) -> int:
        """Number of generated tokens, so far as they are known."""

    @property
    def pending_prompt_tokens(self) -> int:
        """Number of prompt tokens that are not evaluated."""

    @property
    def progress(self) -> PromptProgress | None:
        """Progress of the prompt; None while the job waits for a slot."""

    @property
    def usage(self) -> Usage: ...

    @property
    def upstream(self) -> UpstreamTrace | None:
        """Server that generates; None if this one does."""

    def process(self, output: Any, now: int) -> list[StreamInput]:
        """Return the stream inputs for an output of the job's generator; `now` is in seconds. After the end: none."""
        ...

    def cut(self, now: int, reason: str) -> list[StreamInput]:
        """End the output before its end, for `reason`."""
        ...
