"""Ways to serve a scripted model, with each of which real clients work."""

import pytest

from tests.server.upstream.fronts import Served, fronting
from tests.support import helpers


@pytest.fixture(params=[helpers.served, fronting], ids=["embedded", "front"])
def served(request: pytest.FixtureRequest) -> Served:
    """Serve from the engine in the process, or from upstreams."""
    found: Served = request.param
    return found
