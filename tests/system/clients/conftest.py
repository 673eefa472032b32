"""Ways to serve a scripted model, with each of which real clients work."""

import pytest

from tests.server.upstream.fronts import WAYS, Served, chosen_way


@pytest.fixture(params=WAYS)
def served(request: pytest.FixtureRequest) -> Served:
    return chosen_way(request)


@pytest.fixture(params=WAYS[:-1])
def served_alone(request: pytest.FixtureRequest) -> Served:
    """Ways without PostgreSQL, for tests that would run no line more with it than another test of the client does."""
    return chosen_way(request)
