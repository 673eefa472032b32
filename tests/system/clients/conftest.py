"""Ways to serve a scripted model, with each of which real clients work."""

import pytest

from tests.server.upstream.fronts import WAYS, Served, chosen_way


@pytest.fixture(params=WAYS)
def served(request: pytest.FixtureRequest) -> Served:
    return chosen_way(request)
