"""The marker `slow`: tests without it need no model file, no database server and no network."""

import pytest

from tests.conftest import SLOW_FIXTURES


def test_fast_tests_of_this_run_use_no_slow_fixture(request: pytest.FixtureRequest) -> None:
    fast = [item for item in request.session.items if item.get_closest_marker("slow") is None]
    assert [item.nodeid for item in fast if SLOW_FIXTURES & set(getattr(item, "fixturenames", ()))] == []
