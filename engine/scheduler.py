"""Pure decisions: who gets a slot, whose prefix is reused, which tokens go into the next step.

The worker calls `plan`, lets the model evaluate what it says, and tells the outcome with `absorb` or `fail`.
"""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias

from engine.model import Chunk, ModelInfo
from engine.pieces import Finish, Job, Piece, Reason, Started, Token

Key: TypeAlias = int

# Prompt tokens in one step. A hang-up and the other streams wait for no more than this:
# 50 ms where a machine evaluates 300 tokens a second. Larger chunks gain less than 5% (README, "Figures").
PREFILL_CHUNK = 16


class Running:
    """A job that has a slot. `tokens` is the prompt and what was sampled since."""

    def __init__(self, key: Key, job: Job, cached: int) -> None:
        self.key = key
        self.tokens = list(job.prompt)
        self.cached = cached
        self._prompt = len(job.prompt)
        self._max_tokens = job.max_tokens

    def exhausted(self, n_ctx: int) -> bool:
        return len(self.tokens) >= min(self._prompt + self._max_tokens, n_ctx)


class Slot:
    """A place in the KV cache: `held` are the tokens in it, `running` is who continues them."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.held: list[int] = []
        self.running: Running | None = None
        self.used = 0
        """When the slot was last given back; the scheduler's own count."""

    def common(self, prompt: Sequence[int]) -> int:
        """How many first tokens of `prompt` needn't be evaluated. The last one must be, for its logits."""
        limit = min(len(self.held), len(prompt) - 1)
        return next((i for i in range(limit) if self.held[i] != prompt[i]), limit)


class Scheduler:
    """Jobs wait in order for a slot; the slots that run take turns."""

    def __init__(self, info: ModelInfo, end_tokens: Collection[int]) -> None:
        self._n_ctx = info.n_ctx
        self._end_tokens = frozenset(end_tokens)
        self._slots = [Slot(index) for index in range(info.n_slots)]
        self._waiting: deque[tuple[Key, Job]] = deque()
        self._turns: deque[Slot] = deque()
        self._given_back = 0

    @property
    def idle(self) -> bool:
        return not self._waiting and not self._turns

    def add(self, key: Key, job: Job) -> None:
        self._waiting.append((key, job))

    def cancel(self, key: Key) -> None:
        """Forget a job, wherever it is. One that has ended already is no error: the two may cross."""
        self._waiting = deque(entry for entry in self._waiting if entry[0] != key)
        for slot in self._slots:
            if slot.running is not None and slot.running.key == key:
                self._release(slot)

    def plan(self) -> list[Chunk]:
        """The next step; empty when idle."""
        self._admit()
        if not self._turns:
            return []
        self._turns.rotate(-1)
        return [self._chunk(self._turns[-1])]

    def absorb(self, plan: Sequence[Chunk], sampled: Mapping[int, int]) -> list[tuple[Key, Piece]]:
        """Take in that `plan` was evaluated; `sampled` is the token of each slot whose logits were wanted."""
        pieces: list[tuple[Key, Piece]] = []
        for chunk in plan:
            slot = self._slots[chunk.slot]
            slot.held[chunk.position :] = chunk.tokens
            running = slot.running
            assert running is not None, "only running slots are planned"
            if chunk.position == running.cached:
                pieces.append((running.key, Started(running.cached)))
            if chunk.logits:
                pieces += self._advance(slot, running, sampled[chunk.slot])
        return pieces

    def fail(self, plan: Sequence[Chunk], message: str) -> list[tuple[Key, Piece]]:
        """Take in that `plan` could not be evaluated: its jobs end, the others go on."""
        pieces: list[tuple[Key, Piece]] = []
        for chunk in plan:
            slot = self._slots[chunk.slot]
            del slot.held[chunk.position :]
            if slot.running is not None:
                pieces.append((slot.running.key, Finish(Reason.FAILED, message)))
                self._release(slot)
        return pieces

    def key(self, slot: int) -> Key:
        """Who runs in a slot that was just planned."""
        running = self._slots[slot].running
        assert running is not None, "only running slots are planned"
        return running.key

    def _admit(self) -> None:
        while self._waiting and (free := [slot for slot in self._slots if slot.running is None]):
            key, job = self._waiting.popleft()
            # The longest common prefix wins; among equals the slot that was idle longest loses what it holds.
            slot = max(free, key=lambda slot: (slot.common(job.prompt), -slot.used))
            cached = slot.common(job.prompt)
            del slot.held[cached:]
            slot.running = Running(key, job, cached)
            self._turns.append(slot)

    def _chunk(self, slot: Slot) -> Chunk:
        assert slot.running is not None, "only running slots have a turn"
        position = len(slot.held)
        tokens = slot.running.tokens[position : position + PREFILL_CHUNK]
        return Chunk(slot.index, position, tokens, logits=position + len(tokens) == len(slot.running.tokens))

    def _advance(self, slot: Slot, running: Running, token: int) -> list[tuple[Key, Piece]]:
        running.tokens.append(token)
        if token in self._end_tokens:
            ended: Reason | None = Reason.STOP
        else:
            ended = Reason.LENGTH if running.exhausted(self._n_ctx) else None
        pieces: list[tuple[Key, Piece]] = []
        if ended is not Reason.STOP:
            pieces.append((running.key, Token(token)))
        if ended is not None:
            pieces.append((running.key, Finish(ended)))
            self._release(slot)
        return pieces

    def _release(self, slot: Slot) -> None:
        slot.running = None
        self._given_back += 1
        slot.used = self._given_back
        self._turns.remove(slot)
