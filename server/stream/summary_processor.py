"""Output of a generation that summarises a conversation: one `compaction` item, without reasoning and calls. Pure."""

from collections.abc import Iterable, Iterator

from engine.job import EngineOutput
from engine.tokenizer import Vocabulary
from server.protocol.errors import ApiError
from server.stream.inputs import End, Failure, StreamInput, SummaryAdded, TextAdded, failure
from server.stream.output_processor import OutputProcessor
from server.stream.tool_call_mapper import ToolCallMapper

NO_SUMMARY = "The model wrote no summary; the conversation was not compacted."


class SummaryProcessor(OutputProcessor):
    def __init__(
        self, vocabulary: Vocabulary, prompt_tokens: int, mapper: ToolCallMapper | None, visible: bool = True
    ) -> None:
        """`visible`: False if the client gets no item of this summary, since it is one of a part."""
        super().__init__(vocabulary, prompt_tokens, (), mapper)
        self._visible = visible
        self._texts: list[str] = []

    @property
    def text(self) -> str:
        """Summary so far."""
        return "".join(self._texts).strip()

    def process(self, output: EngineOutput, now: int) -> list[StreamInput]:
        return list(self._summarised(super().process(output, now)))

    def cut(self, now: int, reason: str) -> list[StreamInput]:
        """Return nothing: a summary is never cut."""
        return []

    def _summarised(self, inputs: Iterable[StreamInput]) -> Iterator[StreamInput]:
        """Yield the text as a summary, and the end. The token limit ends a summary like a stop."""
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
