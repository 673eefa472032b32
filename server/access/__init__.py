"""Rules for callers: the Host and Origin headers, and API keys."""

from server.access.api_keys import ApiKeys
from server.access.policy import AccessPolicy

__all__ = ["AccessPolicy", "ApiKeys"]
