"""The words that cross the thread: what is asked of the engine, and what comes back."""

from enum import Enum
from typing import TypeAlias

from msgspec import Struct

from engine.constraint import Grammar


class SamplingParams(Struct, frozen=True):
    """How a token is drawn. Zero switches `temperature` (greedy), `top_k` and `min_p` off; 1 does so for `top_p`."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    seed: int | None = None
    presence_penalty: float = 0.0
    """Taken from the logit of each token that the answer already has."""
    frequency_penalty: float = 0.0
    """Taken as often as the answer already has the token."""
    repeat_penalty: float = 1.0
    """More than 0; positive logits of tokens that were there lately are divided by it, negative ones multiplied."""
    repeat_last_n: int = 64
    """Lately: so many tokens of prompt and answer. 0: none, -1: all."""
    logit_bias: dict[int, float] = {}
    """Added to the logits of these tokens, which the vocabulary must have."""


class Job(Struct, frozen=True):
    """One generation: continue `prompt` (tokens, at least one) by at most `max_tokens` tokens (at least one)."""

    prompt: tuple[int, ...]
    max_tokens: int
    sampling: SamplingParams
    client: str = ""
    """Who asks. Clients whose jobs wait for a slot get one in turn."""
    affinity: str = ""
    """Jobs that say the same go on where the last of them ended: it is better to replace their own cache than
    somebody else's. Empty: none."""
    savable: bool = False
    """True if the KV cache of its tokens may be written to a disk. False if the request was not to be stored."""
    grammar: Grammar | None = None
    """What the answer has to be. Where it can't be held any longer, the generation fails."""
    top_logprobs: int | None = None
    """How many of the likeliest tokens come with each `Token.logprobs`. None: there is none."""


class Started(Struct, frozen=True):
    """The first piece: the job has a slot and its first prompt tokens are evaluated."""

    cached_tokens: int
    """Prompt tokens that needn't be evaluated, since the KV cache held them already."""


class Progress(Struct, frozen=True):
    """A part of the prompt was evaluated, and there is more of it."""

    evaluated_tokens: int
    """Prompt tokens the KV cache holds by now."""


class TokenLogprobs(Struct, frozen=True, gc=False):
    """What the model thought of a token, before penalties, biases or a grammar had their say. Natural logarithms."""

    logprob: float
    top: tuple[tuple[int, float], ...]
    """The likeliest tokens with theirs, the likeliest first."""


class Token(Struct, frozen=True, gc=False):
    """A token of the answer. End tokens are not handed over: they are a `Finished`."""

    id: int
    logprobs: TokenLogprobs | None = None
    """For jobs with `top_logprobs`."""


class FinishReason(Enum):
    """Why a generation ended."""

    STOP = "stop"
    """The model produced an end token."""
    LENGTH = "length"
    """`max_tokens` were produced, or the context is full."""
    FAILED = "failed"
    """The model could not evaluate a step; `Finished.message` says why."""
    GRAMMAR = "grammar"
    """The job's grammar could not be held any longer; the message says why."""


class Finished(Struct, frozen=True):
    """The last piece of every generation."""

    reason: FinishReason
    message: str = ""


EngineOutput: TypeAlias = Started | Progress | Token | Finished
