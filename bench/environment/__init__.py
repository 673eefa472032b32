"""The surroundings of a run: the machine, the server's own facts, and other work on the machine."""

from environment.load import LoadWatch
from environment.machine import machine
from environment.server import Get, is_local, server

__all__ = ["Get", "LoadWatch", "is_local", "machine", "server"]
