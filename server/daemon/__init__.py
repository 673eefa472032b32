"""The process: from the start of the engine to the end of the last stream."""

from server.daemon.daemon import run
from server.daemon.http_options import http_options
from server.daemon.prewarm import read_files

__all__ = ["http_options", "read_files", "run"]
