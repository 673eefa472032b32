"""Requests about a response that another server of the same database generates: that server answers them."""

from server.relay.relay import Relay, RunningElsewhere, replayed

__all__ = ["Relay", "RunningElsewhere", "replayed"]
