"""Options of a request become sampling settings, stops and logprobs."""

from typing import Any

import pytest
from msgspec.structs import replace

from engine.job import SamplingParams
from server.prompt import options
from tests.server.prompt.requests import DEFAULT, request

STOPS: list[tuple[Any, tuple[str, ...]]] = [
    (None, ()),
    ("END", ("END",)),
    ([], ()),
    (["a", "b"], ("a", "b")),
]


@pytest.mark.parametrize(("stop", "expected"), STOPS, ids=repr)
def test_stops_of_text_or_list_are_a_tuple(stop: Any, expected: tuple[str, ...]) -> None:
    assert options.stops(request(stop=stop)) == expected


SAMPLINGS: list[tuple[dict[str, Any], SamplingParams]] = [
    ({}, DEFAULT),
    (dict.fromkeys(SamplingParams.__struct_fields__), DEFAULT),
    ({"temperature": 0}, SamplingParams(0.0, 0.95, 40, 0.05)),
    (
        {"temperature": 1.5, "top_p": 0.5, "top_k": 0, "min_p": 0, "seed": 7},
        SamplingParams(1.5, 0.5, 0, 0.0, 7),
    ),
    (
        {"presence_penalty": -2, "frequency_penalty": 2, "repeat_last_n": -1, "logit_bias": {"7": -100, "0": 0.5}},
        replace(DEFAULT, presence_penalty=-2, frequency_penalty=2, repeat_last_n=-1, logit_bias={7: -100, 0: 0.5}),
    ),
    ({"repeat_penalty": 1.1}, replace(DEFAULT, repeat_penalty=1.1)),
    ({"repetition_penalty": 1.1}, replace(DEFAULT, repeat_penalty=1.1)),
    ({"repetition_penalty": 1.3, "repeat_penalty": 1.1}, replace(DEFAULT, repeat_penalty=1.1)),
]


@pytest.mark.parametrize(("fields", "expected"), SAMPLINGS, ids=repr)
def test_sampling_with_fields_overrides_defaults(fields: dict[str, Any], expected: SamplingParams) -> None:
    assert options.sampling(request(**fields), DEFAULT) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"include": None, "top_logprobs": None}, None),
        ({"include": ["reasoning.encrypted_content"], "top_logprobs": 0}, None),
        ({"include": ["a", options.LOGPROBS]}, 0),
        ({"include": [options.LOGPROBS], "top_logprobs": 20}, 20),
        ({"top_logprobs": 3}, 3),
    ],
)
def test_top_logprobs_or_include_requests_logprobs(fields: dict[str, Any], expected: int | None) -> None:
    assert options.top_logprobs(request(**fields)) == expected


def test_unused_options_names_other_includes() -> None:
    assert options.unused_options(request(include=["a", options.LOGPROBS, "b"])) == ["include a", "include b"]
    assert options.unused_options(request()) == []
