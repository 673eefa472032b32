"""Scenarios of four streams, and of other clients' work that should not delay their tokens."""

from dataclasses import replace
from typing import Any, NamedTuple

from answer import parse
from client import Recording, StreamClient
from measures import Group
from target import Target
from texts import Texts

from scenarios.groups import LONG_WORDS, QUESTION_WORDS, SHORT_ANSWER, Groups, Size, slices

STREAMS = 4
CALM_READS = 60
"""Reads of each stream before the others arrive; the calm gaps are measured on them."""
LONG_ANSWER = 1500
"""Maximum tokens of a stream: more than are read, since the streams must outlast the others."""

BODY_BYTES = 3_900_000
"""Bytes of a large body, below the 4 MB that servers commonly accept."""
ITEM_WORDS = 6
ITEM_BYTES = 76
"""Bytes of a short message of so many words, as JSON, at most."""


class _Gaps(NamedTuple):
    """Answers of the streams before the others arrived, and meanwhile."""

    calm: Group
    during: Group


def interference(target: Target, texts: Texts, size: Size) -> Groups:
    """Send a prompt of 1,500 words beside four streams; measure the streams' gaps before it and until its first
    token."""
    client = target.client()
    streams = _start_streams(client, target, texts)
    long = client.start(target.request(texts.prompt(LONG_WORDS), SHORT_ANSWER))
    client.finish([long])
    arrival = parse(long)
    gaps = _gaps(client, streams, long.start, long.start + (arrival.deltas[0] if arrival.deltas else 0.0))
    return {"calm": gaps.calm, "during": gaps.during, "long prompt": Group([arrival], measures=("ttft",))}


def large_body(target: Target, texts: Texts, size: Size) -> Groups:
    """Send three bodies of 3.9 MB beside four streams; measure the streams' gaps before them and until their answers.

    They are one text, short messages, and spaces. A server may refuse such bodies; a refusal counts as an answer.
    """
    client = target.client()
    requests = [target.request(input_, SHORT_ANSWER) for input_ in _large_inputs(texts)]
    streams = _start_streams(client, target, texts)
    bodies = [client.start(request) for request in requests]
    client.finish(bodies)
    ends = [body.reads[-1][0] for body in bodies if body.reads]
    gaps = _gaps(client, streams, bodies[0].start, max(ends, default=bodies[0].start))
    records = [replace(parse(body), error=body.error, error_kind=body.error_kind) for body in bodies]
    return {"calm": gaps.calm, "during": gaps.during, "large bodies": Group(records, measures=("first_byte",))}


def _large_inputs(texts: Texts) -> list[str | list[dict[str, Any]]]:
    """Return inputs of about `BODY_BYTES` as JSON."""
    items = [{"role": "user", "content": texts.words(ITEM_WORDS)} for _ in range(BODY_BYTES // ITEM_BYTES)]
    return [texts.words(BODY_BYTES // 6)[:BODY_BYTES], items, f"{texts.words(3)}{' ' * BODY_BYTES}{texts.words(3)}"]


def _start_streams(client: StreamClient, target: Target, texts: Texts) -> list[Recording]:
    """Start the streams and read from each until it flows."""
    streams = [client.start(target.request(texts.prompt(QUESTION_WORDS), LONG_ANSWER)) for _ in range(STREAMS)]
    while any(client.running(stream) and len(stream.reads) < CALM_READS for stream in streams):
        client.turn()
    return streams


def _gaps(client: StreamClient, streams: list[Recording], begin: float, end: float) -> _Gaps:
    """Drop the streams, and return their deltas before `begin`, and from there to `end`.

    The calm phase begins once all streams have their first token: before that they delay each other.
    """
    for stream in streams:
        client.drop(stream)
    records = [parse(stream) for stream in streams]
    flowing = max(stream.start + (a.deltas or [0.0])[0] for stream, a in zip(streams, records, strict=True))
    calm, during = slices(streams, records, flowing, begin), slices(streams, records, begin, end)
    return _Gaps(Group(calm, measures=("itl",)), Group(during, measures=("itl",)))
