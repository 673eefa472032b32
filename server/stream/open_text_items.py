"""Messages and reasoning while they stream. Pure."""

from collections.abc import Iterator, Sequence

from msgspec import UNSET, UnsetType

from server.protocol.events import (
    ContentPartAdded,
    ContentPartDone,
    Event,
    OutputItemAdded,
    OutputItemDone,
    OutputTextDelta,
    OutputTextDone,
    ReasoningSummaryPartAdded,
    ReasoningSummaryPartDone,
    ReasoningSummaryTextDelta,
    ReasoningSummaryTextDone,
    ReasoningTextDelta,
    ReasoningTextDone,
)
from server.protocol.output_items import (
    Logprob,
    OutputMessage,
    OutputText,
    ReasoningItem,
    ReasoningText,
    SummaryText,
)
from server.stream.open_item import NextNumber, Opening, Outcome
from server.stream.reasoning_summary import summary_parts


class OpenTextItem:
    """Item of a text that the model writes."""

    silent = False

    def __init__(self, id_: str, output_index: int, number: NextNumber, input_: Opening) -> None:
        self._id = id_
        self._index = output_index
        self._number = number
        self._texts: list[str] = []


class OpenMessage(OpenTextItem):
    """A message with one text part."""

    prefix = "msg"

    def __init__(self, id_: str, output_index: int, number: NextNumber, input_: Opening) -> None:
        super().__init__(id_, output_index, number, input_)
        self._logprobs: list[Logprob] = []

    def added(self) -> Iterator[Event]:
        yield OutputItemAdded(self._number(), self._index, OutputMessage(self._id, "in_progress", ()))
        yield ContentPartAdded(self._number(), self._id, self._index, 0, OutputText(""))

    def delta(self, text: str, logprobs: Sequence[Logprob] = ()) -> Iterator[Event]:
        self._texts.append(text)
        self._logprobs += logprobs
        yield OutputTextDelta(self._number(), self._id, self._index, 0, text, tuple(logprobs))

    def done(self, status: Outcome) -> Iterator[Event]:
        part = OutputText("".join(self._texts), logprobs=tuple(self._logprobs))
        yield OutputTextDone(self._number(), self._id, self._index, 0, part.text, part.logprobs)
        yield ContentPartDone(self._number(), self._id, self._index, 0, part)
        yield OutputItemDone(self._number(), self._index, OutputMessage(self._id, status, (part,)))


class OpenReasoning(OpenTextItem):
    """Reasoning item with one text part. The parts of its summary follow the text (Open Responses, "Streaming")."""

    prefix = "rs"

    def __init__(self, id_: str, output_index: int, number: NextNumber, input_: Opening) -> None:
        super().__init__(id_, output_index, number, input_)
        self.summary: str | None = None
        """Kind of the summary; None for no summary."""
        self.encrypted_content: str | UnsetType = UNSET

    def added(self) -> Iterator[Event]:
        yield OutputItemAdded(self._number(), self._index, ReasoningItem(self._id, "in_progress", ()))
        yield ContentPartAdded(self._number(), self._id, self._index, 0, ReasoningText(""))

    def delta(self, text: str, logprobs: Sequence[Logprob] = ()) -> Iterator[Event]:
        self._texts.append(text)
        yield ReasoningTextDelta(self._number(), self._id, self._index, 0, text)

    def done(self, status: Outcome) -> Iterator[Event]:
        part = ReasoningText("".join(self._texts))
        yield ReasoningTextDone(self._number(), self._id, self._index, 0, part.text)
        yield ContentPartDone(self._number(), self._id, self._index, 0, part)
        summary = tuple(map(SummaryText, summary_parts(part.text, self.summary)))
        for at, each in enumerate(summary):
            yield ReasoningSummaryPartAdded(self._number(), self._id, self._index, at, SummaryText(""))
            yield ReasoningSummaryTextDelta(self._number(), self._id, self._index, at, each.text)
            yield ReasoningSummaryTextDone(self._number(), self._id, self._index, at, each.text)
            yield ReasoningSummaryPartDone(self._number(), self._id, self._index, at, each)
        item = ReasoningItem(self._id, status, (part,), summary, self.encrypted_content)
        yield OutputItemDone(self._number(), self._index, item)
