"""Reader of another server's stream: whole frames and their numbers. Pure."""

import re

from server.protocol.sse import DONE

NUMBER = re.compile(rb'"sequence_number":([0-9]+)')


class FrameReader:
    """Splits a stream after its last complete frame, so that a broken stream ends between two frames."""

    def __init__(self, number: int) -> None:
        """`number`: of the last event that the client has."""
        self.number = number
        self.ended = False
        """True once the last frame came."""
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """Return the frames that are complete, without the last one of the stream."""
        whole, mark, self._rest = (self._rest + data).rpartition(b"\n\n")
        frames = whole + mark
        if frames.endswith(DONE):
            self.ended = True
            frames = frames.removesuffix(DONE)
        if numbers := NUMBER.findall(frames):
            self.number = int(numbers[-1])
        return frames
