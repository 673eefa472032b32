"""HTTP to an upstream: its address, a client with a pool of connections, event streams, and faults."""

from server.upstream.transport import faults
from server.upstream.transport.address import Address
from server.upstream.transport.client import ClientTimeouts, UpstreamClient
from server.upstream.transport.event_stream import EventData, EventTooLong
from server.upstream.transport.faults import OutputMismatch, UpstreamFault

__all__ = [
    "Address",
    "ClientTimeouts",
    "EventData",
    "EventTooLong",
    "OutputMismatch",
    "UpstreamClient",
    "UpstreamFault",
    "faults",
]
