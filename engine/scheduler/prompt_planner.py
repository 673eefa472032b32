"""Plan the steps of prompts: the next tokens of one prompt, as many as the budget allows. Pure."""

from collections import Counter
from collections.abc import Sequence

from engine.model import BatchEntry, ModelInfo
from engine.scheduler.slots import Slot, next_entry, running_sequence
from engine.scheduler.step_budget import StepBudget

OLDEST_PROMPT_INTERVAL = 8
"""Number of successive prompt steps of a lane, one of which is for its oldest prompt."""


class PromptPlanner:
    """Plans steps with a prompt."""

    def __init__(self, info: ModelInfo, budget: StepBudget) -> None:
        self._info = info
        self._budget = budget
        self._limit = 0
        """Maximum prompt tokens of the last planned step."""
        self._planned = Counter[bool]()
        """Number of steps planned for interactive jobs (False) and for batch jobs (True)."""

    def entry(self, prompts: Sequence[Slot], streams: int, others: int) -> BatchEntry:
        """Return the next tokens of one of the `prompts`, which are in order of admission.

        `streams` and `others` are the numbers of streams and of other slots that share the lane."""
        self._limit = self._budget.prefill_tokens(streams, others)
        slot = self._next_prompt(prompts)
        tile = 1 if streams else self._info.attention_tile
        tokens = slot.pending if self._info.truncates else slot.until_checkpoint
        return next_entry(slot, _even_part_size(tokens, self._limit, tile))

    def measure(self, streams: int, tokens: int, seconds: float) -> None:
        """Record that a step with that many tokens took so long, while `streams` waited."""
        if 2 * tokens > self._limit:  # in short steps the pass over the weights dominates the cost of a token
            self._budget.record_prefill(streams, tokens, seconds)

    def _next_prompt(self, prompts: Sequence[Slot]) -> Slot:
        """Return the shortest prompt; in every `OLDEST_PROMPT_INTERVAL`th step of the lane the oldest, so that short
        ones cannot starve it."""
        is_batch = running_sequence(prompts[0]).is_batch
        self._planned[is_batch] += 1
        if self._planned[is_batch] % OLDEST_PROMPT_INTERVAL == 0:
            return prompts[0]
        return min(prompts, key=lambda slot: slot.pending)


def _even_part_size(tokens: int, max_size: int, min_size: int) -> int:
    """Return the size of equal parts of about `max_size` tokens: a short rest would cost a whole pass over the weights.

    Parts may exceed `max_size` in order not to fall below `min_size`.
    """
    parts = min(-(-tokens // max_size), max(tokens // min_size, 1))
    return -(-tokens // parts)
