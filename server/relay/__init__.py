"""Servers on one database: requests about a response go to the server that generates it, and deletions to all."""

from server.relay.forgetting import Forgetting
from server.relay.relay import Relay, RunningElsewhere, replayed

__all__ = ["Forgetting", "Relay", "RunningElsewhere", "replayed"]
