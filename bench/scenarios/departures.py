"""Scenarios of clients that hang up, measured by the next small request."""

from target import Target
from texts import Texts

from scenarios.groups import LONG_WORDS, QUESTION_WORDS, SHORT_ANSWER, Groups, Size, group, has_delta, small_request

DROP_SECONDS = 0.2
"""Seconds until the client of the long prompt hangs up."""
DROPPED_STREAMS = 2
"""Streams that hang up: all slots of a small server."""

_MEASURES = ("first_byte", "ttft")


def abandoned_prompt(target: Target, texts: Texts, size: Size) -> Groups:
    """Send a small request alone, and one behind a prompt of 1,500 words whose client hung up after 200 ms."""
    client = target.client()
    alone = client.play([small_request(target, texts)], 1)
    dropped = client.start(target.request(texts.prompt(LONG_WORDS), SHORT_ANSWER))
    client.wait(DROP_SECONDS)
    client.drop(dropped)
    behind = client.play([small_request(target, texts)], 1)
    return {"alone": group(alone, _MEASURES), "behind": group(behind, _MEASURES)}


def hang_up(target: Target, texts: Texts, size: Size) -> Groups:
    """Send a small request alone, and one behind two streams that hung up after their first delta."""
    client = target.client()
    quiet = client.play([small_request(target, texts)], 1)
    streams = [client.start(target.request(texts.prompt(QUESTION_WORDS), None)) for _ in range(DROPPED_STREAMS)]
    for stream in streams:
        client.read_until(stream, has_delta)
    for stream in streams:
        client.drop(stream)
    behind = client.play([small_request(target, texts)], 1)
    return {"quiet": group(quiet, _MEASURES), "behind": group(behind, _MEASURES)}
