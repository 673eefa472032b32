"""State of the server for `GET /status`, without any text of prompts or answers."""

from typing import Literal, TypeAlias

from msgspec import UNSET, Struct, UnsetType

from server.generation import GeneratingServer, Generation, GenerationSummary, output_rate
from server.monitoring.latencies import LatencyStatus
from server.store import StoreUsage

StreamState: TypeAlias = Literal["queued", "prefill", "decode", "tool"]
"""`queued` waits for a slot; `tool` has none while an MCP server executes a call."""

ID_CHARACTERS = 13
"""Characters of an id that are shown: anyone with a whole id can read the stored response."""
GAPS = 60
"""Number of a stream's latest gaps."""


class StatusModel(Struct, frozen=True):
    name: str
    engine: str
    n_ctx: int
    """Tokens of context per slot."""
    fallback: str
    """Reason for another engine than llama.cpp; empty if llama.cpp runs the model."""


class RunningStream(Struct, frozen=True):
    """A response in progress, or one that waits for a slot. Times are in seconds."""

    id: str
    """Beginning of the response's id."""
    client: str
    """Name of the API key, or the client's address."""
    route: str
    mode: str
    lane: str
    state: StreamState
    seconds: float
    """Since its admission."""
    queue: float
    ttft: float | None
    prompt_tokens: int
    cached_tokens: int
    evaluated_tokens: int
    """Prompt tokens in the KV cache by now, the cached ones included."""
    output_tokens: int
    max_output_tokens: int
    tokens_per_second: float
    gaps: tuple[float, ...]
    """Latest times between two arrivals of tokens."""


class EndedAnswer(Struct, frozen=True):
    """A response that has ended. Times are in seconds."""

    id: str
    age: float
    """Since its end."""
    client: str
    route: str
    mode: str
    lane: str
    outcome: str
    queue: float
    ttft: float | None
    seconds: float
    prompt_tokens: int
    cached_tokens: int
    evicted_tokens: int
    output_tokens: int
    tokens_per_second: float
    cache_miss: str
    """Why tokens of earlier prompts were evaluated again; empty if few were."""
    cache_miss_place: str
    """Place of the difference in the request; empty if it is not known."""


class CacheStatus(Struct, frozen=True):
    """Prompt tokens since the start, and the prefix cache beside the slots."""

    prompt_tokens: int
    cached_tokens: int
    evicted_tokens: int
    misses: dict[str, int]
    """Reason -> number of answers."""
    bytes: int
    limit_bytes: int
    evictions: int


class MemoryStatus(Struct, frozen=True):
    """Memory of the process in bytes."""

    rss: int
    file: int
    """Part of it that the kernel can read again: pages of the model file and of programs."""
    model: int
    """Size of the model's tensors."""


class UpstreamStatus(Struct, frozen=True):
    """Another server that generates, since the start."""

    url: str
    healthy: bool
    running: int
    answers: int
    errors: int
    first_delta: float | None
    """Mean seconds from a request to its first delta; None before the first one."""
    lacking: tuple[str, ...] = ()
    """Fields of the API that it lacks."""
    error: str = ""
    """Why its last answer about its model cannot be used."""


class Status(Struct, frozen=True):
    version: str
    uptime: float
    model: StatusModel
    slots: int
    running: int
    waiting: int
    queue_limit: int
    """Requests of each lane that may wait for a slot."""
    generated_tokens: int
    """Since the start."""
    streams: tuple[RunningStream, ...]
    latency: LatencyStatus
    cache: CacheStatus
    memory: MemoryStatus
    store: StoreUsage | None
    """Null if the server stores nothing, or if the store cannot be read."""
    answers: tuple[EndedAnswer, ...]
    """The latest, the newest first."""
    upstreams: tuple[UpstreamStatus, ...] | UnsetType = UNSET
    """Absent if this server generates itself."""


def upstream_status(server: GeneratingServer) -> UpstreamStatus:
    times = server.first_delta
    mean = times.seconds / sum(times.counts) if sum(times.counts) else None
    errors, about = sum(server.errors.values()), (server.lacking, server.error)
    return UpstreamStatus(server.url, server.healthy, server.running, server.answers, errors, mean, *about)


def running_stream(generation: Generation, now: float) -> RunningStream:
    """Return the facts about a generation that has not ended."""
    spec, timings, tokens = generation.spec, generation.timings, generation.generated_tokens
    usage, first, begun = spec.processor.usage, timings.first_token, timings.started
    begun = min(now, generation.slot.since) if begun is None else begun
    return RunningStream(
        generation.response.id[:ID_CHARACTERS],
        spec.origin.client,
        spec.origin.route,
        spec.mode,
        spec.job.lane.value,
        _state(generation, now),
        now - timings.admitted,
        begun - timings.admitted,
        None if first is None else first - timings.admitted,
        usage.input_tokens,
        usage.input_tokens_details.cached_tokens,
        usage.input_tokens - spec.processor.pending_prompt_tokens,
        tokens,
        spec.job.max_tokens,
        output_rate(tokens, timings.gaps, timings.jobs),
        tuple(round(gap, 5) for gap in timings.gaps[-GAPS:]),
    )


def _state(generation: Generation, now: float) -> StreamState:
    processor = generation.spec.processor
    if now < generation.slot.since:
        return "queued" if generation.queued else "tool"
    return "decode" if processor.output_tokens and not processor.pending_prompt_tokens else "prefill"


def ended_answer(each: GenerationSummary) -> EndedAnswer:
    """Return the facts about a generation that has just ended, without its gaps, which may be many."""
    return EndedAnswer(
        each.response_id[:ID_CHARACTERS],
        0.0,
        each.origin.client,
        each.origin.route,
        each.mode,
        each.lane.value,
        each.outcome,
        each.queue,
        each.first_token,
        each.duration,
        each.input_tokens,
        each.cached_tokens,
        each.evicted_tokens,
        each.output_tokens,
        each.tokens_per_second,
        each.cache_miss,
        each.cache_miss_place,
    )
