"""Frames of another server's stream: whole ones only, and the number of the last event."""

from hypothesis import given
from hypothesis import strategies as st

from server.relay.frames import FrameReader

EVENTS = [
    b'event: response.created\ndata: {"type":"response.created","sequence_number":0}\n\n',
    b": still here\n\n",
    b'event: response.output_text.delta\ndata: {"sequence_number":1,"delta":"\\"sequence_number\\":7"}\n\n',
    b'event: response.completed\ndata: {"sequence_number":12,"response":{}}\n\n',
    b"data: [DONE]\n\n",
]


@given(st.lists(st.integers(0, len(b"".join(EVENTS)))))
def test_stream_in_any_pieces_becomes_its_whole_frames(cuts: list[int]) -> None:
    stream, frames, sent, last = b"".join(EVENTS), FrameReader(-1), b"", 0
    for cut in [*sorted(cuts), len(stream)]:
        sent += frames.feed(stream[last:cut])
        last = cut
        assert stream.startswith(sent)
        assert not sent or sent.endswith(b"\n\n")
    assert (sent, frames.number, frames.ended) == (b"".join(EVENTS[:-1]), 12, True)


def test_stream_that_is_cut_has_the_number_of_its_last_whole_frame() -> None:
    frames = FrameReader(-1)
    assert frames.feed(EVENTS[0] + EVENTS[2] + EVENTS[3][:-1]) == EVENTS[0] + EVENTS[2]
    assert (frames.number, frames.ended) == (1, False)
