"""Callers: Host and Origin, API keys, trusted proxies, identifiers for the log, names of events that they read."""

from server.access.api_keys import ANYBODY, ApiKey, ApiKeys, Caller
from server.access.policy import AccessPolicy
from server.access.proxies import UNIX, TrustedProxies
from server.access.reasoning_names import ANY_VERSION, VERSION, Header, reads_open_names
from server.access.refusals import Refusal, RefusalCounts
from server.access.tracing import FRONTS, client_request_id, fronts, trace_id

__all__ = [
    "ANYBODY",
    "ANY_VERSION",
    "FRONTS",
    "UNIX",
    "VERSION",
    "AccessPolicy",
    "ApiKey",
    "ApiKeys",
    "Caller",
    "Header",
    "Refusal",
    "RefusalCounts",
    "TrustedProxies",
    "client_request_id",
    "fronts",
    "reads_open_names",
    "trace_id",
]
