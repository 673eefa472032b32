"""Parts of the answer to one request, as they arrive."""

from collections import deque

from server.upstream.tokens.servers import AnswerPart, PartReader
from server.upstream.transport import EVENT_STREAM, EventData, EventTooLong, UpstreamAnswer, faults, shallow

MAX_ANSWER_BYTES = 64 << 20
"""Bytes of an answer at most, between two of its tokens: SGLang repeats all tokens in each part of a stream."""
JSON = "application/json"


class AnswerParts:
    def __init__(self, url: str, answer: UpstreamAnswer, reader: PartReader) -> None:
        """`url`: of the upstream, for errors. Raises UpstreamFault if the answer is neither a stream nor JSON."""
        if answer.content_type not in (EVENT_STREAM, JSON):
            raise faults.malformed(url, f"its answer is {answer.content_type!r} instead of a stream or JSON")
        self._url = url
        self._answer = answer
        self._reader = reader
        self._events = EventData()
        self._size = 0
        self._ready: deque[AnswerPart] = deque()
        self._is_last = False
        self._finished = False

    async def next(self) -> AnswerPart | None:
        """Return the next part; None at the end. Raises UpstreamFault if the answer ends before its last part."""
        while not self._ready and not self._is_last:
            if self._answer.content_type == JSON:
                self._add(await self._answer.read(MAX_ANSWER_BYTES))
                self._is_last = True
            elif data := await self._answer.data():
                self._feed(data)
            else:
                self._is_last = True
        if self._ready:
            return self._ready.popleft()
        if not self._finished:
            raise faults.cut(self._url, "no reason for the end")
        return None

    async def drain(self) -> None:
        """Read the rest of the body, so that the connection can be used again."""
        await self._answer.drain()

    def _feed(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > MAX_ANSWER_BYTES:
            raise faults.malformed(self._url, f"its answer has {MAX_ANSWER_BYTES} bytes without a token")
        try:
            for event in self._events.feed(data):
                self._add(event)
        except EventTooLong as error:
            raise faults.malformed(self._url, "an event of its stream is too long") from error

    def _add(self, data: bytes) -> None:
        if self._is_last:
            return
        try:
            part = self._reader.part(shallow(data))
        except faults.DECODING_ERRORS as error:
            raise faults.malformed(self._url, f"a part of its answer has no tokens ({error})") from error
        if part.tokens:
            self._size = 0
        self._ready.append(part)
        self._is_last = part.last
        self._finished |= part.finish is not None
