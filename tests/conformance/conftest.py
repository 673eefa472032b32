"""Ways to serve a scripted model, each of which the cases of Open Responses and of openai-python pass."""

import pytest

from tests.server.upstream.fronts import Served, fronting
from tests.support import helpers


@pytest.fixture(params=[helpers.served, fronting], ids=["embedded", "front"])
def served(request: pytest.FixtureRequest) -> Served:
    """Serve from the engine in the process, or from upstreams."""
    found: Served = request.param
    return found
