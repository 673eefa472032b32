"""Rules for callers: the Host and Origin headers, API keys, and trusted proxies."""

from server.access.api_keys import ANYBODY, ApiKey, ApiKeys, Caller
from server.access.policy import AccessPolicy
from server.access.proxies import UNIX, TrustedProxies

__all__ = ["ANYBODY", "UNIX", "AccessPolicy", "ApiKey", "ApiKeys", "Caller", "TrustedProxies"]
