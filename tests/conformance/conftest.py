"""Ways to serve a scripted model, each of which the cases of Open Responses and of openai-python pass."""

from functools import partial

import pytest

from tests.server.upstream.fronts import Served, balanced, fronting, token_fronting
from tests.support import helpers

TOKENS = pytest.param(token_fronting, id="front that sends tokens")
BALANCED = pytest.param(balanced, marks=pytest.mark.slow, id="fronts on PostgreSQL")


@pytest.fixture(
    params=[pytest.param(helpers.served, id="embedded"), pytest.param(fronting, id="front"), TOKENS, BALANCED]
)
def served(request: pytest.FixtureRequest) -> Served:
    """Serve from the engine in the process, from upstreams in both forms, or from two fronts on one database."""
    way: Served = request.param
    return partial(balanced, request.getfixturevalue("cluster")) if way is balanced else way
