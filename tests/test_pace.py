"""How many prompt tokens a step carries."""

from engine.pace import ALONE_SECONDS, FIRST_TOKENS, STEPS, Pace


def measured(decode: dict[int, float], per_token: float, *, max_step: float = 0.0) -> Pace:
    pace = Pace(512, max_step)
    for _ in range(100):
        for streams, seconds in decode.items():
            pace.took(streams, 0, seconds)
        pace.took(0, 32, 32 * per_token)
    return pace


def test_before_anything_is_measured_a_step_is_short() -> None:
    assert Pace(512).tokens(0) == Pace(512).tokens(4) == FIRST_TOKENS


def test_beside_streams_a_step_takes_so_many_usual_ones() -> None:
    pace = measured({1: 0.006, 4: 0.018}, per_token=0.002)
    assert pace.tokens(1) == int((STEPS - 1) * 0.006 / 0.002)
    assert pace.tokens(4) == int((STEPS - 1) * 0.018 / 0.002)


def test_alone_a_prompt_takes_what_a_newcomer_may_wait() -> None:
    assert measured({1: 0.006}, per_token=0.002).tokens(0) == int(ALONE_SECONDS / 0.002)


def test_a_longest_step_is_kept() -> None:
    assert measured({1: 0.006}, per_token=0.002, max_step=0.030).tokens(1) == int((0.030 - 0.006) / 0.002)


def test_every_prompt_goes_on_even_where_one_token_takes_too_long() -> None:
    assert measured({1: 0.006}, per_token=0.5).tokens(1) == 1


def test_a_fast_machine_is_bounded_by_the_batch() -> None:
    assert measured({4: 0.001}, per_token=1e-7).tokens(4) == 512 - 4


def test_numbers_of_streams_that_were_not_seen_are_taken_from_the_nearest() -> None:
    pace = measured({2: 0.010}, per_token=0.002)
    assert pace.tokens(4) == int((STEPS - 1) * 0.020 / 0.002)


def test_a_step_that_another_process_stalled_is_no_measure() -> None:
    pace = measured({1: 0.006}, per_token=0.002)
    before = pace.tokens(1)
    pace.took(1, 0, 3.0)
    pace.took(1, 3, 3.0)
    assert abs(pace.tokens(1) - before) <= 1


def test_it_learns_when_tokens_become_dearer() -> None:
    pace = measured({1: 0.006}, per_token=0.002)
    for _ in range(100):
        pace.took(0, 32, 32 * 0.004)
    assert pace.tokens(0) == int(ALONE_SECONDS / 0.004)
