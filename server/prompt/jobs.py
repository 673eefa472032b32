"""The engine's job for a prompt, and the tokens that a prompt may have. Pure."""

from collections.abc import Sequence

from engine.job import Job, SamplingParams
from server.prompt import options, truncation
from server.protocol.errors import InvalidRequest
from server.protocol.request import Request


def job(
    request: Request, prompt: Sequence[int], sampling: SamplingParams, n_ctx: int, limit: int = 0, name: str = "input"
) -> Job:
    """Return the job that continues `prompt` (tokens) by at most `limit` tokens; 0 allows what the context leaves.

    `name`: field of the request that the prompt comes from.

    Raises InvalidRequest if the prompt leaves no space for an answer.
    """
    if not prompt:
        message = "The model's chat template renders this conversation as an empty prompt: send a text."
        raise InvalidRequest(message, param=name)
    left = n_ctx - len(prompt)
    if left < 1:
        raise _too_long(str(len(prompt)), n_ctx, name)
    max_tokens = 0 if request.prewarms else min(request.max_output_tokens or left, limit or left, left)
    return Job(tuple(prompt), max_tokens, sampling, top_logprobs=options.top_logprobs(request))


def check_bias(sampling: SamplingParams, n_vocab: int) -> None:
    """Raise InvalidRequest if a bias is for a token that the vocabulary does not have."""
    if (token := max(sampling.logit_bias, default=0)) >= n_vocab:
        raise InvalidRequest(
            f"`logit_bias` names token {token}; this model's tokens are 0 to {n_vocab - 1}.", param="logit_bias"
        )


def max_prompt_tokens(request: Request, n_ctx: int, limit: int = 0) -> int | None:
    """Return the tokens that the prompt may have before the oldest turns are dropped; None if none are dropped.

    `limit`: the server's limit; 0 without one.
    """
    if request.truncation != "auto":
        return None
    most = n_ctx - truncation.reserved_tokens(request.max_output_tokens, n_ctx)
    return min(most, limit or most)


def refuse_more(count: int, n_ctx: int, name: str, limit: int = 0) -> None:
    """Raise InvalidRequest if the context has less than `count` tokens, which are only the first ones of the prompt.

    `limit`: the server's limit; 0 without one.
    """
    if limit and limit < min(count, n_ctx):
        raise InvalidRequest(
            f"The input has more than {limit} tokens, which this server accepts. "
            "Shorten the input, or raise the limit with --max-prompt-tokens.",
            param=name,
            code="context_length_exceeded",
        )
    if count > n_ctx:
        raise _too_long(f"more than {n_ctx}", n_ctx, name)


def _too_long(count: str, n_ctx: int, name: str) -> InvalidRequest:
    return InvalidRequest(
        f"The input has {count} tokens; the model's context has {n_ctx}. "
        "Shorten the input, or start the server with a larger --context.",
        param=name,
        code="context_length_exceeded",
    )
