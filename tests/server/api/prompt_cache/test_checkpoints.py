"""Requests to a model whose state cannot be cut: the server finds the places in the prompt to save it."""

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from engine.backends.scripted import ScriptedModel
from engine.model import BatchEntry, ModelError, SavedState
from tests.support.helpers import post, served

pytestmark = pytest.mark.slow

INSTRUCTIONS = "You answer in one sentence."
SYSTEM = len(INSTRUCTIONS) + 1
"""Tokens of the system prompt, up to the next marker."""


class Recurrent(ScriptedModel):
    """A slot can only be continued; a saved state continues only at its end."""

    def __init__(self) -> None:
        super().__init__(batched=True)
        limits = {"copies_prefixes": False, "multi_row_logits": False, "cuts_state": False, "truncates": False}
        self.info = replace(self.info, **limits)

    def decode(self, batch: Sequence[BatchEntry]) -> None:
        assert all(entry.position in (0, len(self._cached_tokens[entry.slot])) for entry in batch)
        super().decode(batch)

    def save(self, slot: int, start: int, end: int) -> SavedState:
        assert end == len(self._cached_tokens[slot])
        return SavedState(super().save(slot, start, end).rows, b"recurrent state")

    def restore(self, slot: int, states: Sequence[SavedState], n: int) -> None:
        if not states[-1].tail:
            raise ModelError("there is no state to continue from")
        super().restore(slot, states, n)

    def split(self, state: SavedState, at: int) -> tuple[SavedState, SavedState]:
        left, right = super().split(state, at)
        return left, SavedState(right.rows, state.tail)


async def test_response_of_a_recurrent_model_reuses_the_system_prompt_and_earlier_turns() -> None:
    async with served(Recurrent()) as running:

        async def ask(text: str, *past: dict[str, str]) -> int:
            """Return the number of cached tokens of a request."""
            items = [*past, {"role": "user", "content": text}]
            response = (await post(running, instructions=INSTRUCTIONS, input=items)).json
            assert response["output"][0]["content"][0]["text"] == text, "an echo"
            cached: int = response["usage"]["input_tokens_details"]["cached_tokens"]
            return cached

        first = ({"role": "user", "content": "What is a slot?"}, {"role": "assistant", "content": "What is a slot?"})
        turn = len("What is a slot?") + 1
        assert await ask("What is a slot?") == 0
        assert await ask("Another question, of somebody else") == SYSTEM
        assert await ask("And a third question") == SYSTEM
        assert await ask("And what is a step?", *first) == SYSTEM + 2 * turn
        assert await ask("No: what is a token?", *first) == SYSTEM + 2 * turn
        assert await ask("What is a slot?") == SYSTEM + turn
