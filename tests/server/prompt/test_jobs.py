"""Prompts become jobs of the engine, within the context."""

import pytest
from msgspec.structs import replace

from engine.job import Job
from server.prompt import jobs
from server.protocol.errors import InvalidRequest
from tests.server.prompt.requests import DEFAULT, request


def test_logit_bias_beyond_vocabulary_is_rejected() -> None:
    jobs.check_bias(DEFAULT, 1)
    jobs.check_bias(replace(DEFAULT, logit_bias={0: 1, 99: 1}), 100)
    with pytest.raises(InvalidRequest) as caught:
        jobs.check_bias(replace(DEFAULT, logit_bias={0: 1, 100: 1}), 100)
    assert (caught.value.param, caught.value.message) == (
        "logit_bias",
        "`logit_bias` names token 100; this model's tokens are 0 to 99.",
    )


JOBS: list[tuple[int | None, int, int]] = [
    (None, 97, 3),
    (1, 97, 1),
    (3, 97, 3),
    (4, 97, 3),
    (10**30, 97, 3),
    (None, 99, 1),
]
"""`max_output_tokens`, tokens of the prompt, and the job's `max_tokens` in a context of 100."""


@pytest.mark.parametrize(("requested", "n_prompt", "max_tokens"), JOBS)
def test_job_max_tokens_are_limited_by_context(requested: int | None, n_prompt: int, max_tokens: int) -> None:
    tokens = range(n_prompt)
    job = jobs.job(request(max_output_tokens=requested), tokens, DEFAULT, 100)
    assert job == Job(tuple(tokens), max_tokens, DEFAULT)


@pytest.mark.parametrize("n_prompt", [100, 1000])
def test_job_with_too_long_prompt_is_rejected(n_prompt: int) -> None:
    with pytest.raises(InvalidRequest) as caught:
        jobs.job(request(), range(n_prompt), DEFAULT, 100)
    assert (caught.value.param, caught.value.code, caught.value.message) == (
        "input",
        "context_length_exceeded",
        (
            f"The input has {n_prompt} tokens; the model's context has 100. "
            "Shorten the input, or start the server with a larger --context."
        ),
    )
