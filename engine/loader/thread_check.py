"""Check before a load that the process may have its threads: native code that may not start one ends the process."""

import threading

from engine.wording import counted

OTHER_THREADS = 5
"""Threads beside those of a step: inference, masks, files, the store, work on large requests."""


def check(step_threads: int) -> None:
    """Raise OSError if this process may not start all threads of a server."""
    release = threading.Event()
    started: list[threading.Thread] = []
    needed = step_threads + OTHER_THREADS
    try:
        for _ in range(needed):
            thread = threading.Thread(target=release.wait)
            thread.start()
            started.append(thread)
    except RuntimeError as error:
        allowed = counted(len(started), "thread")
        raise OSError(
            f"this process may start {allowed}, and needs {needed}: allow this user more processes "
            "(`ulimit -u`; TasksMax= of a systemd unit, pids.max of a container)"
        ) from error
    finally:
        release.set()
        for thread in started:
            thread.join()
