"""Faults of upstream servers: what went wrong, whether another attempt may help, and the error for the client. Pure."""

from collections.abc import Iterable
from typing import Any

import msgspec

from server.protocol.errors import ApiError, InvalidRequest, Unavailable
from server.upstream.transport.depth import shallow

DECODING_ERRORS = (ValueError, RecursionError, LookupError, OverflowError)
"""Errors of decoders and readers: no JSON, other types, no UTF-8, values nested too deeply, or numbers out of range."""

BROKEN_OFF = ("abort", "error", "cancelled")
"""Values of `finish_reason` for answers that are not complete (vLLM, SGLang, OpenRouter)."""

REFUSALS = ("http_400", "http_404", "http_415", "http_422", "http_500", "http_501")
"""Kinds of faults that mean a refusal of the request's fields, if the request without them works."""

HIDDEN = "[key]"
MAX_QUOTED = 300
"""Characters of an upstream's own message in an error."""

RETRY_SECONDS = 2
"""Seconds until a retry may find an upstream: those that are away are asked every second."""


class UpstreamError(ApiError):
    """The upstream gave no answer that can be used."""

    status = 502
    code = fault = "upstream_error"

    @property
    def event_code(self) -> str | None:
        return ApiError.code


class UpstreamTimeout(UpstreamError):
    """The upstream took too long."""

    status = 504
    code = fault = "upstream_timeout"


class UpstreamLoop(UpstreamError):
    """The request comes from this server itself."""

    status = 508


class UpstreamBusy(Unavailable):
    """The upstream accepts no request now."""

    code = fault = "upstream_busy"

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RequestRefused(InvalidRequest):
    """The upstream finds a fault in the request."""

    fault = "upstream_refused"

    @property
    def event_code(self) -> str | None:
        return "invalid_prompt"


class OutputMismatch(UpstreamError):
    """The upstream's output breaks the schema, the tools or the tool choice of the request."""

    code = fault = "output_mismatch"


class UpstreamFault(Exception):
    """One attempt failed."""

    def __init__(
        self, kind: str, error: ApiError, *, retries: bool, wait: float = 0.0, unhealthy: bool = False
    ) -> None:
        """`kind`: name for the metrics. `retries`: another attempt may help, after `wait` seconds.

        `unhealthy`: the upstream gets no requests until a health check passes.
        """
        super().__init__(error.message)
        self.kind = kind
        self.error = error
        self.retries = retries
        self.wait = wait
        self.unhealthy = unhealthy

    def hide(self, secret: str) -> None:
        """Remove a secret that the upstream has repeated in its message."""
        if secret:
            self.error.message = self.error.message.replace(secret, HIDDEN)
            self.args = (self.error.message,)

    @property
    def refuses(self) -> bool:
        """True if the upstream refuses the request's fields, provided that the request without them works."""
        return self.kind in REFUSALS

    @property
    def away(self) -> bool:
        """True if the upstream may answer later without a change of the settings."""
        if self.kind == "http_508":
            return False
        return self.kind in ("connect", "timeout", "cut", "http_429") or self.kind.startswith("http_5")


def none_usable(causes: Iterable[str]) -> UpstreamFault:
    """Return the fault if no upstream is known to have the model."""
    error = UpstreamBusy(f"No upstream can be used now. {sentences(causes)}", RETRY_SECONDS)
    return UpstreamFault("unusable", error, retries=False)


def sentences(causes: Iterable[str]) -> str:
    """Return causes as sentences. A cause that quotes an upstream may lack its period."""
    return " ".join(f"{each.removesuffix('.')}." for each in causes)


def unreachable(url: str, cause: str) -> UpstreamFault:
    error = UpstreamError(f"The upstream {url} cannot be reached ({cause}).")
    return UpstreamFault("connect", error, retries=True, unhealthy=True)


def too_slow(url: str, what: str, seconds: float) -> UpstreamFault:
    error = UpstreamTimeout(f"The upstream {url} {what} for {seconds:g} s.")
    return UpstreamFault("timeout", error, retries=False, unhealthy=True)  # the client has waited long enough


def cut(url: str, cause: str) -> UpstreamFault:
    error = UpstreamError(f"The upstream {url} ended its stream before the answer was complete ({one_line(cause)}).")
    return UpstreamFault("cut", error, retries=True)


def malformed(url: str, cause: str) -> UpstreamFault:
    error = UpstreamError(f"The upstream {url} does not answer as its API requires: {one_line(cause)}.")
    return UpstreamFault("protocol", error, retries=True)


def looped() -> ApiError:
    return UpstreamLoop("The request has been here before: this server is among its own upstreams; correct --upstream.")


def redirected(url: str, status: int, location: str) -> UpstreamFault:
    """Return the fault for a redirect, which is not followed: the key is for the upstream alone."""
    error = UpstreamError(f"The upstream {url} redirects to {one_line(location)!r} (status {status}): use that URL.")
    return UpstreamFault(f"http_{status}", error, retries=False)


def refused(url: str, status: int, message: str, retry_after: float | None = None) -> UpstreamFault:
    """Return the fault for a status other than 200, or for an error inside a stream."""
    quoted = f": {one_line(message)}" if message else ""
    kind = f"http_{status}"
    if status in (429, 503):
        wait = 1.0 if retry_after is None else retry_after
        busy = UpstreamBusy(f"The upstream {url} is busy (status {status}){quoted}", max(1, round(wait)))
        return UpstreamFault(kind, busy, retries=True, wait=wait)
    if status in (400, 413, 422):
        code = "context_length_exceeded" if _is_too_long(message) else None
        return UpstreamFault(
            kind, RequestRefused(f"The upstream {url} refuses the request{quoted}", code=code), retries=False
        )
    if status in (401, 403):
        error = UpstreamError(f"The upstream {url} refuses this server's key (status {status}): check the key's file.")
        return UpstreamFault(kind, error, retries=False)
    error = UpstreamError(f"The upstream {url} answered with status {status}{quoted}")
    return UpstreamFault(kind, error, retries=status >= 500, unhealthy=status in (502, 504))


def failed(url: str, error: Any) -> UpstreamFault:
    """Return the fault for an error object inside an answer."""
    code = error.get("code") if isinstance(error, dict) else None
    status = code if type(code) is int and 400 <= code < 600 else 500
    return refused(url, status, error_message(error))


def one_line(text: str) -> str:
    """Return the beginning of a text for a line of the log, without controls."""
    return " ".join("".join(each if each.isprintable() else " " for each in text[:MAX_QUOTED]).split())


def _is_too_long(message: str) -> bool:
    """True for the messages of llama.cpp and vLLM about a prompt beyond the context."""
    return any(words in message.lower() for words in ("context size", "context length", "maximum context"))


def message_of(body: bytes) -> str:
    """Return the message of an error object; the text itself if it is none."""
    text = body.decode(errors="replace")
    try:
        shallow(body)
        return error_message(msgspec.json.decode(text))
    except DECODING_ERRORS:
        return text.strip()


def error_message(value: Any) -> str:
    """Return the message inside an error: OpenAI's object, FastAPI's `detail`, or a text."""
    while isinstance(value, dict):
        value = next((value[name] for name in ("error", "message", "detail") if value.get(name)), "")
    try:
        return value if isinstance(value, str) else msgspec.json.encode(value).decode()
    except RecursionError:
        return ""
