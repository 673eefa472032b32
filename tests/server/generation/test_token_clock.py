"""`server.generation.token_clock`: which times belong to which token."""

from engine.job import Finished, FinishReason, Progress, Started, StepTimes, Token
from server.generation.token_clock import TokenClock
from server.protocol.response import TokenColumns, TokenTimes


def test_times_follow_each_token_through_the_stages() -> None:
    clock = TokenClock(100, 101)
    clock.emitted(1)  # response.created and response.in_progress: no token yet
    clock.encoded(1, 102)
    clock.written(1, 102)
    clock.handed_over([StepTimes(102, 103, 103), Started(0), Progress(16)], 103)
    clock.handed_over([StepTimes(104, 105, 106), Token(1)], 107)
    clock.emitted(4)
    clock.encoded(4, 108)
    clock.written(4, 109)
    clock.handed_over([StepTimes(106, 107, 108), Token(2), Token(3, forced=True)], 109)
    clock.emitted(4)  # the text of both waits for the next token
    clock.handed_over([StepTimes(108, 109, 110), Token(4)], 111)
    clock.emitted(6)
    clock.encoded(6, 112)
    clock.written(6, 113)
    clock.handed_over([StepTimes(110, 111, 112), Token(5), Finished(FinishReason.STOP)], 113)
    assert clock.times() == TokenTimes(
        received=100,
        admitted=1,
        prefill_begun=2,
        prefill_done=5,
        tokens=TokenColumns(
            decoding=(4, 6, 6, 8, 10),
            decoded=(5, 7, 7, 9, 11),
            sampled=(6, 8, 8, 10, 12),
            handed_over=(7, 9, 9, 11, 13),
            encoded=(8, 12, 12, 12, None),
            written=(9, 13, 13, 13, None),
            event=(4, 6, 6, 6, None),
        ),
    )


def test_times_without_a_step_have_no_prefill() -> None:
    clock = TokenClock(100, 101)
    clock.emitted(2)
    times = clock.times()
    assert times == TokenTimes(100, 1, None, None, TokenColumns((), (), (), (), (), (), ()))


def test_times_of_a_second_reader_do_not_replace_the_first() -> None:
    clock = TokenClock(100, 101)
    clock.handed_over([StepTimes(101, 102, 103), Token(1)], 104)
    clock.emitted(4)
    clock.encoded(4, 105)
    clock.written(4, 106)
    clock.encoded(4, 115)
    clock.written(4, 116)
    columns = clock.times().tokens
    assert (columns.encoded, columns.written) == ((5,), (6,))
