"""Work on large requests, in a thread beside the event loop."""

from server.work_thread.work_thread import ITEM_BYTES, LARGE, Check, WorkThread

__all__ = [
    "ITEM_BYTES",
    "LARGE",
    "Check",
    "WorkThread",
]
