"""The process: from the start of the engine to the end of the last stream."""

from server.daemon.daemon import run
from server.daemon.prewarm import read_files

__all__ = ["read_files", "run"]
