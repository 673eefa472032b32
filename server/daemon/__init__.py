"""The process: from the start of the engine to the end of the last stream."""

from server.daemon.daemon import run

__all__ = ["run"]
