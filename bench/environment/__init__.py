"""The surroundings of a run: the machine, the server's own facts, and other work on the machine."""

from environment.machine import machine
from environment.other_work import OtherWorkWatch
from environment.server import is_local, server

__all__ = ["OtherWorkWatch", "is_local", "machine", "server"]
