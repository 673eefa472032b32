"""Work on large requests, in a thread beside the event loop."""

from server.work_thread.work_thread import LARGE, Check, WorkThread, size_of

__all__ = [
    "LARGE",
    "Check",
    "WorkThread",
    "size_of",
]
