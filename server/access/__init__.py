"""Callers: the Host and Origin headers, API keys, trusted proxies, and identifiers for the log."""

from server.access.api_keys import ANYBODY, ApiKey, ApiKeys, Caller
from server.access.policy import AccessPolicy
from server.access.proxies import UNIX, TrustedProxies
from server.access.refusals import Refusal, RefusalCounts
from server.access.tracing import client_request_id, trace_id

__all__ = [
    "ANYBODY",
    "UNIX",
    "AccessPolicy",
    "ApiKey",
    "ApiKeys",
    "Caller",
    "Refusal",
    "RefusalCounts",
    "TrustedProxies",
    "client_request_id",
    "trace_id",
]
