"""`GET /status`: slots, streams, latencies, cache and memory at this moment."""

import resource
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from server.generation import Generations, GenerationSummary, Generator
from server.http import Exchange
from server.monitoring.latencies import RecentLatencies
from server.monitoring.release import release
from server.monitoring.status_body import (
    CacheStatus,
    EndedAnswer,
    MemoryStatus,
    Status,
    StatusModel,
    ended_answer,
    running_stream,
    upstream_status,
)
from server.served_model import AnsweringModel
from server.store import AsyncStore

NOT_CACHED = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
ANSWERS = 20
"""Number of the latest answers."""


class StatusHandler:
    """Memory of the last minutes, and the handler that shows it."""

    def __init__(
        self,
        engine: Generator,
        generations: Generations,
        model: AnsweringModel,
        store: AsyncStore | None,
        clock: Callable[[], float],
    ) -> None:
        """`clock` is that of the generations."""
        self._engine = engine
        self._generations = generations
        self._model = model
        self._store = store
        self._clock = clock
        self._began = time.monotonic()
        self._latencies = RecentLatencies()
        self._answers: deque[tuple[float, EndedAnswer]] = deque(maxlen=ANSWERS)
        self._tokens: Counter[str] = Counter()
        self._misses: Counter[str] = Counter()

    def record_answer(self, summary: GenerationSummary) -> None:
        """Record a response that has ended."""
        now = self._clock()
        self._answers.appendleft((now, ended_answer(summary)))
        for name in ("input_tokens", "cached_tokens", "evicted_tokens"):
            self._tokens[name] += getattr(summary, name)
        if summary.cache_miss:
            self._misses[summary.cache_miss] += 1
        if summary.first_token is not None:
            at = now - summary.duration + summary.first_token
            self._latencies.record(summary.response_id, at, summary.first_token, summary.gaps, ended=True)
        self._latencies.forget(now)

    async def retrieve(self, exchange: Exchange) -> None:
        await exchange.answer(200, msgspec.json.encode(await self._status()), NOT_CACHED)

    async def _status(self) -> Status:
        store = None if self._store is None else await self._store.usage()
        now, generations, stats = self._clock(), self._generations, self._engine.stats()
        running = generations.in_progress
        for each in running:
            admitted, first = each.timings.admitted, each.timings.first_token
            if first is not None:
                self._latencies.record(each.response.id, first, first - admitted, each.timings.gaps, ended=False)
        streams = tuple(running_stream(each, now) for each in running)
        card = self._model.card
        return Status(
            release(),
            time.monotonic() - self._began,
            StatusModel(card.name, card.engine, card.n_ctx, card.fallback),
            card.n_slots,
            sum(each.state in ("prefill", "decode") for each in streams),
            sum(each.state == "queued" for each in streams),
            generations.queue_limit,
            generations.generated_tokens,
            streams,
            self._latencies.snapshot(now),
            CacheStatus(
                self._tokens["input_tokens"],
                self._tokens["cached_tokens"],
                self._tokens["evicted_tokens"],
                dict(self._misses),
                stats.cache_bytes,
                stats.cache_limit_bytes,
                stats.cache_evictions,
            ),
            _memory(card.file.size),
            store,
            tuple(replace(each, age=now - ended) for ended, each in self._answers),
            tuple(map(upstream_status, servers)) if (servers := self._engine.servers()) else UNSET,
        )


def _memory(model: int, statm: Path = Path("/proc/self/statm")) -> MemoryStatus:
    """Return the memory of this process; zeros without the kernel's figures (proc(5), "statm")."""
    try:
        _, rss, file, *_ = (int(word) * resource.getpagesize() for word in statm.read_text().split())
    except OSError:
        rss = file = 0
    return MemoryStatus(rss, file, model)
