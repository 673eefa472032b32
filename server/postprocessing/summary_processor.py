"""Output of a generation that summarizes a conversation: one `compaction` item, without reasoning and calls. Pure."""

from collections.abc import Iterable, Iterator
from typing import Any

from server.postprocessing.processor import Processor, UpstreamTrace
from server.protocol.errors import ApiError
from server.protocol.events import PromptProgress
from server.protocol.response import Usage
from server.stream import End, Failure, StreamInput, SummaryAdded, TextAdded, failure

NO_SUMMARY = "The model wrote no summary; the conversation was not compacted."


class SummaryProcessor:
    def __init__(self, answer: Processor, visible: bool = True) -> None:
        """`answer`: processor of the model's output. `visible`: False if the client gets no item of this summary, since
        it is one of a part."""
        self._answer = answer
        self._visible = visible
        self._texts: list[str] = []

    @property
    def text(self) -> str:
        """Summary so far."""
        return "".join(self._texts).strip()

    @property
    def started(self) -> bool:
        return self._answer.started

    @property
    def ended(self) -> bool:
        return self._answer.ended

    @property
    def output_tokens(self) -> int:
        return self._answer.output_tokens

    @property
    def pending_prompt_tokens(self) -> int:
        return self._answer.pending_prompt_tokens

    @property
    def progress(self) -> PromptProgress | None:
        return self._answer.progress

    @property
    def usage(self) -> Usage:
        return self._answer.usage

    @property
    def upstream(self) -> UpstreamTrace | None:
        return self._answer.upstream

    def process(self, output: Any, now: int) -> list[StreamInput]:
        return list(self._summarized(self._answer.process(output, now)))

    def cut(self, now: int, reason: str) -> list[StreamInput]:
        """Return nothing: a summary is never cut."""
        return []

    def _summarized(self, inputs: Iterable[StreamInput]) -> Iterator[StreamInput]:
        """Yield the text as a summary, and the end. A summary that reaches the token limit counts as complete."""
        for input_ in inputs:
            match input_:
                case TextAdded(text):
                    self._texts.append(text)
                    if self._visible and self.text:
                        yield SummaryAdded(text)
                case End(now, usage):
                    yield End(now, usage) if self.text else failure(ApiError(NO_SUMMARY), usage)
                case Failure():
                    yield input_
