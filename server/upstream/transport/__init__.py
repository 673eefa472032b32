"""HTTP to an upstream: its address, a client with a pool of connections, event streams, faults, and attempts."""

from server.upstream.transport import faults
from server.upstream.transport.address import Address
from server.upstream.transport.answer import UpstreamAnswer
from server.upstream.transport.attempt import (
    EVENT_STREAM,
    Ask,
    Attempt,
    AttemptBegun,
    AttemptsFailed,
    FirstDelta,
    UpstreamJob,
)
from server.upstream.transport.client import ClientTimeouts, UpstreamClient
from server.upstream.transport.depth import shallow
from server.upstream.transport.event_stream import DONE, EventData, EventTooLong
from server.upstream.transport.faults import BROKEN_OFF, OutputMismatch, UpstreamFault
from server.upstream.transport.missing_fields import MIN_TOP_P, MissingFields, lacking_anywhere

__all__ = [
    "BROKEN_OFF",
    "DONE",
    "EVENT_STREAM",
    "MIN_TOP_P",
    "Address",
    "Ask",
    "Attempt",
    "AttemptBegun",
    "AttemptsFailed",
    "ClientTimeouts",
    "EventData",
    "EventTooLong",
    "FirstDelta",
    "MissingFields",
    "OutputMismatch",
    "UpstreamAnswer",
    "UpstreamClient",
    "UpstreamFault",
    "UpstreamJob",
    "faults",
    "lacking_anywhere",
    "shallow",
]
