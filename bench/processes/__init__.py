"""Processes of servers: starting and stopping them, and their use of memory and CPU."""

from processes.process_meter import ProcessMeter
from processes.server_process import ServerProcess, is_command

__all__ = ["ProcessMeter", "ServerProcess", "is_command"]
