"""Adds the sealed text of each reasoning item to the inputs of a stream. Pure."""

from collections.abc import Callable, Iterator, Sequence

from server.stream import End, ReasoningAdded, ReasoningSealed, StreamInput, TextAdded, ToolCallStarted


class ReasoningSealer:
    """Sealer of the items of one response. An item that an error cuts stays unsealed."""

    def __init__(self, seal: Callable[[str], str]) -> None:
        self._seal = seal
        self._texts: list[str] = []

    def add(self, inputs: Sequence[StreamInput]) -> Iterator[StreamInput]:
        """Yield the inputs, with a `ReasoningSealed` before each that closes a reasoning item."""
        for input_ in inputs:
            if isinstance(input_, ReasoningAdded):
                self._texts.append(input_.text)
            elif self._texts and isinstance(input_, TextAdded | ToolCallStarted | End):
                yield ReasoningSealed(self._seal("".join(self._texts)))
                self._texts.clear()
            yield input_
