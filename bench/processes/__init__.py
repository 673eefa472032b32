"""Processes of servers: starting and stopping them, and their use of memory and CPU."""

from processes.process_meter import ProcessMeter, ProcessUse, process_use
from processes.server_process import ServerProcess, is_command

__all__ = ["ProcessMeter", "ProcessUse", "ServerProcess", "is_command", "process_use"]
