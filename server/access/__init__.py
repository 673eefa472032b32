"""Rules for callers: the Host and Origin headers, API keys, and trusted proxies."""

from server.access.api_keys import ApiKeys
from server.access.policy import AccessPolicy
from server.access.proxies import UNIX, TrustedProxies

__all__ = ["UNIX", "AccessPolicy", "ApiKeys", "TrustedProxies"]
