"""Version of the installed package."""

from functools import cache
from importlib.metadata import version


@cache
def release() -> str:
    """Return the version; the first call reads a file, each `/status` needs it."""
    return version("responsed")
