"""Wait until a server is ready: after its start, or after a restart."""

import http.client
import time
from collections.abc import Callable

from transport.endpoint import Endpoint

START_SECONDS = 300.0
"""Maximum seconds until a server is ready that was started or restarted."""
POLL_SECONDS = 0.02
"""Seconds between two attempts."""


def authorization(key: str | None) -> dict[str, str]:
    """Return the header of an API key."""
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def ready(endpoint: Endpoint, headers: dict[str, str]) -> bool:
    """True if the server can answer: `/health` has 200 or is unknown, and `/v1/models` does not fail."""
    try:
        health, _ = endpoint.get("/health", headers)
        return health in (200, 404, 405) and endpoint.get("/v1/models", headers)[0] < 500
    except (OSError, http.client.HTTPException):
        return False


def wait_ready(endpoint: Endpoint, headers: dict[str, str], alive: Callable[[], bool] = lambda: True) -> float:
    """Wait until the server is ready, and return the clock's time then.

    Raises TimeoutError if it is not ready in time, or `alive` becomes false.
    """
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and alive():
        if ready(endpoint, headers):
            return time.perf_counter()
        time.sleep(POLL_SECONDS)
    reason = f"in {START_SECONDS:g} s" if alive() else "since its process ended"
    raise TimeoutError(f"{endpoint.url} did not become ready {reason}")
