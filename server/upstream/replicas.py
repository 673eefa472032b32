"""The upstream servers: which one answers a conversation, and which ones are healthy. Pure."""

from collections.abc import Collection, Sequence
from hashlib import blake2b

from engine.scheduler import Histogram
from server.generation import GeneratingServer
from server.upstream.transport import UpstreamClient

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Upper bounds in seconds of the time to an upstream's first delta."""


class Replica:
    """One upstream server."""

    def __init__(self, client: UpstreamClient) -> None:
        self.client = client
        self.healthy = True
        self.error = ""
        """Why its last answer about its model cannot be used."""
        self.barred = False
        """True if it gets no requests at all: its model or its API is not the one that was asked for."""
        self.lacking: tuple[str, ...] = ()
        """Fields that it lacks."""
        self.running = 0
        """Requests in progress."""
        self.outputs = 0
        """Parts of answers that have come."""
        self.answers = 0
        self.errors: dict[str, int] = {}
        """Failed attempts by their kind."""
        self.first_delta = Histogram(SECONDS)
        """Seconds from the request to the first delta."""

    @property
    def url(self) -> str:
        return self.client.address.url

    def state(self) -> GeneratingServer:
        times = self.first_delta.snapshot()
        return GeneratingServer(
            self.url,
            self.healthy,
            self.running,
            self.answers,
            dict(self.errors),
            times,
            self.lacking,
            self.error,
        )

    def failed(self, kind: str, unhealthy: bool) -> None:
        """Count a failed attempt."""
        self.errors[kind] = self.errors.get(kind, 0) + 1
        if unhealthy:
            self.healthy = False


def choose(replicas: Sequence[Replica], affinity: str, tried: Collection[Replica] = ()) -> Replica:
    """Return the replica for a conversation: rendezvous hashing over the healthy ones that were not tried.

    At least one is not barred. A conversation stays with its replica while that is healthy, and only the conversations
    of a replica that fails go elsewhere (Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates",
    1998).
    """
    usable = [each for each in replicas if not each.barred]
    untried = [each for each in usable if each not in tried] or usable
    candidates = [each for each in untried if each.healthy] or untried
    if len(candidates) == 1:
        return candidates[0]
    return max(candidates, key=lambda each: _weight(each.url, affinity))


def _weight(url: str, affinity: str) -> bytes:
    return blake2b(f"{url} {affinity}".encode(errors="surrogatepass"), digest_size=8).digest()
