"""Noise: the range of the rounds' medians."""

from record import Record
from reports.noise import noise, relative


def answered(number: int, ttft: float, tokens: int = 10) -> Record:
    return Record(round=number, start=10.0 * number, deltas=[ttft], end=1.0, output_tokens=tokens)


def test_noise_is_the_range_of_the_medians_of_rounds() -> None:
    records = [answered(0, 0.1), answered(0, 0.3), answered(0, 0.2), answered(1, 0.4, 30), answered(2, 0.3)]
    found = noise([*records, Record(round=3, error="HTTP 503")])
    assert found["ttft_ms"] == {"rounds": 3, "min": 200.0, "median": 300.0, "max": 400.0}
    assert found["output_tokens_per_s"] == {"rounds": 3, "min": 10.0, "median": 30.0, "max": 30.0}
    assert "itl_ms" not in found  # one delta has no gap
    assert relative(found["ttft_ms"]) == 1 / 3


def test_noise_of_one_round_is_unknown() -> None:
    assert noise([answered(0, 0.1), answered(0, 0.2)]) == {}
    assert relative(None) is None
