"""Exceptions of a request -> errors for its client."""

import logging

from server.protocol.errors import ApiError, EntryTooLarge, Unavailable
from server.store import StoreError, TooLarge

STOPPING = "The server is shutting down; try again later."
TOO_LARGE = (
    "The conversation or response would be larger than all of the store may be: delete items, begin a new conversation "
    "or raise --store-megabytes."
)
INTERNAL_ERROR = "Internal error; see the server log."

log = logging.getLogger("responsed.http")


def stopping() -> ApiError:
    """Return the error for requests that meet a shutdown."""
    return Unavailable(STOPPING, reason="shutting_down")


def answer_timeout(seconds: float) -> ApiError:
    """Return the error of an answer that had a slot for longer than `seconds`."""
    return ApiError(f"The answer took longer than {seconds:g} s (--answer-timeout).", reason="answer_timeout")


def as_api_error(error: Exception, request_id: str) -> ApiError:
    """Return the error for the client. Log all errors but ApiErrors, with the request's id."""
    match error:
        case ApiError():
            return error
        case TooLarge():
            log.warning("%s: %s", request_id, error)
            return EntryTooLarge(TOO_LARGE, reason="store_limit")
        case StoreError():
            log.warning("%s: %s", request_id, error)
            return Unavailable("The store cannot be read or written now: try again later.", reason="store")
        case MemoryError():
            log.error("%s: out of memory", request_id)
            return Unavailable("The server has no memory for this request: try a smaller one.", reason="out_of_memory")
    log.error("%s failed", request_id, exc_info=error)
    return ApiError(INTERNAL_ERROR)
