"""Scenarios of a server that starts or restarts, and of clients that stay connected."""

import resource
import threading
from dataclasses import replace
from time import perf_counter

from answer import parse
from measures import Group
from record import Record
from target import Target
from texts import Texts
from transport import START_SECONDS

from scenarios.groups import Groups, Size, group, has_delta, small_request

SMALL_REQUESTS = 5
STREAMS_IN_FLIGHT = 2
RETRY_SECONDS = 0.1
"""Pause of a client between two attempts."""


def cold_start(target: Target, texts: Texts, size: Size) -> Groups:
    """Start the server anew, and send a small request as soon as it is ready, and more of them.

    The first token counts from the start of the process (`--serve`) or of the command (`--restart`).
    """
    begin = target.restart()
    ready = perf_counter()
    first = target.client().start(small_request(target, texts), planned=begin)
    target.client().finish([first])
    return {
        "ready": Group([Record(start=begin, end=ready - begin, status="ready")], ready - begin, ("ready",)),
        "first token": group([first], ("ttft",)),
        "next": _alone(target, texts),
    }


def restart(target: Target, texts: Texts, size: Size) -> Groups:
    """Restart the server beside two streams, while a client tries again each 100 ms until it is answered.

    `restarted` counts from the begin of the restart: the time for which a client has no server. `in flight` shows
    whether the streams end well.
    """
    before = _alone(target, texts)
    client = target.client()
    streams = [client.start(size.lengths.draw(target, texts)) for _ in range(STREAMS_IN_FLIGHT)]
    for stream in streams:
        client.read_until(stream, has_delta)
    client.close()
    began, failed = perf_counter(), []

    def run() -> None:
        try:
            target.restart_server()
        except (OSError, ValueError, TimeoutError) as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    client.wait(RETRY_SECONDS)
    answered = _retry(target, texts, began, thread)
    thread.join()
    if failed:
        raise failed[0]
    client.finish(streams)
    return {
        "before": before,
        "in flight": group(streams, ("e2e",)),
        "restarted": Group([answered], answered.end or 0.0, ("ttft",)),
        "after": _alone(target, texts),
    }


def _retry(target: Target, texts: Texts, began: float, restarting: threading.Thread) -> Record:
    """Return the record of the first request that the new server answers.

    Attempts before the end of the restart are dropped: the old server may have answered them.
    """
    client = target.client()
    deadline = began + START_SECONDS
    while True:
        over = not restarting.is_alive()
        attempt = client.start(small_request(target, texts), planned=began)
        client.finish([attempt])
        record = parse(attempt)
        if over and (not record.error or perf_counter() > deadline):
            return record
        client.wait(RETRY_SECONDS)


def idle_connections(target: Target, texts: Texts, size: Size) -> Groups:
    """Send small requests alone, and beside `--idle` other clients' connections that are open and send nothing.

    Raises ValueError if connections do not stay open, or too few files may be open.
    """
    alone = _alone(target, texts, ("first_byte", "ttft", "itl"))
    _allow_files(size.idle)
    others = target.new_client()
    if not others.keep_alive:
        raise ValueError("idle-connections needs connections that stay open: leave out --no-keep-alive")
    connected = group(others.play([target.models_request()] * size.idle, size.idle), ("first_byte",))
    records = [_as_answer(record) for record in connected.records]
    beside = _alone(target, texts, ("first_byte", "ttft", "itl"))
    others.close()
    return {"alone": alone, "idle": Group(records, connected.wall, ("first_byte",)), "beside": beside}


def _as_answer(record: Record) -> Record:
    """Return the record without its error if the answer is not a stream, which is no fault here."""
    return replace(record, error="", error_kind="") if record.error_kind == "protocol" else record


def _allow_files(count: int) -> None:
    """Raise the limit of open files. Raises ValueError if the hard limit is too low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + 64
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ValueError(f"--idle {count} needs {needed} open files; the limit is {hard} (ulimit -n)")
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _alone(target: Target, texts: Texts, measures: tuple[str, ...] = ("ttft",)) -> Group:
    return group(target.client().play([small_request(target, texts) for _ in range(SMALL_REQUESTS)], 1), measures)
