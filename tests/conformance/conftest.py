"""Ways to serve a scripted model, each of which the cases of Open Responses and of openai-python pass."""

import pytest

from tests.server.upstream.fronts import WAYS, Served, chosen_way


@pytest.fixture(params=WAYS)
def served(request: pytest.FixtureRequest) -> Served:
    return chosen_way(request)
