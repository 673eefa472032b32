"""Facts about a generation that has ended, for the log and the metrics. Pure."""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from engine.job import Lane
from server.generation.timings import Timings, output_rate
from server.postprocessing import UpstreamTrace
from server.protocol.response import Extensions, Response, Usage
from server.stream import evicted_tokens


class Origin(Struct, frozen=True):
    """The request that started a generation."""

    request_id: str
    client: str
    """Name of the API key, or the client's address."""
    route: str
    key: str = ""
    """Name of the API key; empty if the server needs none."""
    skipped: tuple[str, ...] = ()
    """Parts of the request that had no effect."""
    trace_id: str = ""
    """Trace id of the caller's `traceparent`; empty without one."""
    client_request_id: str = ""
    transport: str = ""
    """Name of the transport; empty for HTTP."""

    @property
    def notes(self) -> str:
        """Return the end of the log line."""
        return notes(self.skipped, self.trace_id, self.client_request_id)


class EarlierPrompt(Struct, frozen=True):
    """Comparison of a prompt with an earlier one of the conversation."""

    reusable_tokens: int = 0
    """First tokens that the earlier prompt has too."""
    repeated_tokens: int = 0
    """Tokens after the first difference that the earlier prompt has too."""
    reason: str = ""
    """Why the prompts differ; `first_prompt` without an earlier one; empty if few tokens are repeated."""
    place: str = ""
    """Place of the difference in the request, without any content."""
    note: str = ""
    """Sentence for the log if the repeated tokens were evaluated again; empty if there are few."""

    def repeats(self, usage: Usage) -> bool:
        """True if the repeated tokens were evaluated again."""
        return bool(self.note) and usage.input_tokens_details.cache_write_tokens >= self.repeated_tokens

    def miss_reason(self, usage: Usage) -> str:
        """Return why tokens of earlier prompts were evaluated again; empty if few were."""
        if self.repeats(usage):
            return self.reason
        if evicted_tokens(self.reusable_tokens, usage):
            return "evicted"
        return "" if self.note else self.reason


def notes(skipped: Sequence[str], trace_id: str, client_request_id: str) -> str:
    """Return the notes after a line of the log. Texts of the client are literals: a literal has no line break."""
    names = f"; skipped: {', '.join(f'{each[:100]!r}' for each in skipped[:10])}" if skipped else ""
    trace = f"; trace {trace_id}" if trace_id else ""
    return f"{names}{trace}{f'; client request {client_request_id!r}' if client_request_id else ''}"


class GenerationSummary(Struct, frozen=True):
    """A generation that has ended. Times are in seconds."""

    response_id: str
    origin: Origin
    mode: str
    """`stream`, `background`, `whole` or `websocket`."""
    lane: Lane
    outcome: str
    """Final status of the response, with the reason unless it is completed."""
    queue: float
    """Until it got a slot, or until its end without one; without the time of calls."""
    duration: float
    tools: float
    """Time of `duration` in which MCP servers listed tools and executed calls."""
    first_token: float | None
    """Until the first token; None without one; without the time of calls."""
    gaps: Sequence[float]
    """Between arrivals of a job's tokens."""
    jobs: int
    """Number of jobs that generated tokens: each call of an MCP server ends one."""
    input_tokens: int
    cached_tokens: int
    evicted_tokens: int
    """Prompt tokens that an earlier prompt of the conversation has too, and the cache had no longer."""
    output_tokens: int
    cache_miss: str = ""
    """Why tokens of earlier prompts were evaluated again: `evicted`, or a reason of `EarlierPrompt`."""
    cache_miss_place: str = ""
    upstream: UpstreamTrace | None = None
    """The last request to another server that generates; None if this one does."""

    @property
    def tokens_per_second(self) -> float:
        """Return the output rate after the first arrival of each job; 0 without a second one."""
        return output_rate(self.output_tokens, self.gaps, self.jobs)

    def fields(self) -> dict[str, Any]:
        """Return the figures for a log of objects: the gaps as their number, mean and largest."""
        gaps = self.gaps or [0.0]
        return {
            **{name: getattr(self, name) for name in self.__struct_fields__ if name not in ("gaps", "upstream")},
            **({} if self.upstream is None else {"upstream": self.upstream}),
            "arrivals": len(self.gaps),
            "mean_gap": sum(gaps) / len(gaps),
            "longest_gap": max(gaps),
            "tokens_per_second": self.tokens_per_second,
        }

    def line(self) -> str:
        """Return the summary as a line of the log."""
        evicted = f", evicted {self.evicted_tokens}" if self.evicted_tokens else ""
        tools = f"tools {self.tools * 1e3:.0f} ms, " if self.tools else ""
        first = "none" if self.first_token is None else f"{self.first_token * 1e3:.0f} ms"
        return (
            f"{self.response_id} {self.origin.request_id} {self.origin.client} {self.origin.route} {self.mode} "
            f"{'batch ' if self.lane is Lane.BATCH else ''}"
            f"{self.outcome}: queue {self.queue * 1e3:.0f} ms, {tools}first token {first}, in {self.input_tokens} "
            f"(cached {self.cached_tokens}{evicted}), out {self.output_tokens}, {self.tokens_per_second:.1f} tokens/s, "
            f"{self.duration * 1e3:.0f} ms{_upstream_note(self.upstream)}{self.origin.notes}"
        )


def content(response: Response, items: bytes) -> str:
    """Return the content of an answer for the log, in one line of JSON. `items`: the input, a JSON list."""
    fields = {"instructions": response.instructions, "input": Raw(items), "output": response.output}
    return msgspec.json.encode(fields).decode()


def summarize(
    response: Response,
    origin: Origin,
    timings: Timings,
    mode: str,
    why: str,
    earlier: EarlierPrompt,
    now: float,
    upstream: UpstreamTrace | None = None,
) -> GenerationSummary:
    """Return the summary of a generation that ended at `now`.

    `why`: cause of the end; empty: the response names it. `earlier`: see GenerationSpec.
    """
    usage, begun = response.usage, timings.started
    reason = "" if usage is None else earlier.miss_reason(usage)
    admitted = timings.admitted + timings.tools_first
    return GenerationSummary(
        response.id,
        origin,
        mode,
        Lane.BATCH if response.service_tier == "flex" else Lane.INTERACTIVE,
        _outcome(response, why),
        queue=max((now if begun is None else begun) - admitted, 0.0),
        duration=now - timings.admitted,
        tools=timings.tools,
        first_token=None if timings.first_token is None else timings.first_token - admitted,
        gaps=timings.gaps,
        jobs=timings.jobs,
        input_tokens=0 if usage is None else usage.input_tokens,
        cached_tokens=0 if usage is None else usage.input_tokens_details.cached_tokens,
        evicted_tokens=0 if usage is None else evicted_tokens(earlier.reusable_tokens, usage),
        output_tokens=0 if usage is None else usage.output_tokens,
        cache_miss=reason,
        cache_miss_place=earlier.place if reason == earlier.reason else "",
        upstream=upstream,
    )


def _upstream_note(trace: UpstreamTrace | None) -> str:
    if trace is None:
        return ""
    attempts = f" at attempt {trace.attempts}" if trace.attempts > 1 else ""
    return f"; upstream {trace.url} {trace.seconds * 1e3:.0f} ms{attempts}"


def _outcome(response: Response, why: str) -> str:
    if not why and response.error is not None:
        why = (isinstance(response.responsed, Extensions) and response.responsed.fault) or response.error.code
    if not why and response.incomplete_details is not None:
        why = response.incomplete_details.reason
    return f"{response.status} ({why})" if why and response.status != "completed" else str(response.status)
