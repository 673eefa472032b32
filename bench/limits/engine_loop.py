"""Bare loop over any engine, through the interface that the inference thread calls."""

from pathlib import Path
from time import perf_counter

from engine.loader import Options, load
from engine.model import BatchEntry


class EngineLoop:
    """A loaded model with one slot."""

    def __init__(self, path: Path, engine: str, threads: int, context: int, cache: Path) -> None:
        """Raises ModelError. `cache`: folder for a copy that the engine needs."""
        options = Options(n_slots=1, n_ctx=context, threads=threads, threads_batch=threads, engine=engine)
        self._model = load(path, options, cache).model
        self.n_vocab = self._model.info.n_vocab
        self._most = self._model.info.max_batch_tokens

    def close(self) -> None:
        """Free the model."""
        self._model.close()

    def decode(self, rows: list[tuple[int, int, int]], wanted: list[int]) -> float:
        """Evaluate rows of (token, position, 0), and the logits of the last. Return the seconds of the decodes."""
        took = 0.0
        for first in range(0, len(rows), self._most):
            part = rows[first : first + self._most]
            is_last = first + len(part) == len(rows)
            entry = BatchEntry(0, part[0][1], [token for token, _, _ in part], int(is_last and bool(wanted)))
            begin = perf_counter()
            self._model.decode([entry])
            took += perf_counter() - begin
        return took

    def most_likely(self, row: int) -> int:
        """Return the most likely token."""
        return int(self._model.logits(0).argmax())

    def forget(self) -> None:
        """Do nothing: a decode from position 0 replaces the slot."""
