"""Data that crosses the thread border: jobs for the engine and the outputs that it returns."""

from enum import Enum
from typing import TypeAlias

from msgspec import Struct

from engine.constraint import Grammar


class SamplingParams(Struct, frozen=True):
    """Settings for drawing a token. Zero turns off `temperature` (greedy), `top_k` and `min_p`; 1 turns off `top_p`."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    seed: int | None = None
    presence_penalty: float = 0.0
    """Subtracted from the logit of each token that the answer already contains."""
    frequency_penalty: float = 0.0
    """Subtracted from a token's logit once for each occurrence in the answer."""
    repeat_penalty: float = 1.0
    """More than 0. Positive logits of recent tokens are divided by it, negative ones multiplied."""
    repeat_last_n: int = 64
    """Number of recent tokens, of prompt and answer, for `repeat_penalty`. 0: none, -1: all."""
    logit_bias: dict[int, float] = {}
    """Values added to the logits of these tokens, which must exist in the vocabulary."""


class Lane(Enum):
    """Priority of a job."""

    INTERACTIVE = "interactive"
    """A client waits for the answer."""
    BATCH = "batch"
    """The job uses the slots and steps that interactive jobs leave."""


class Job(Struct, frozen=True):
    """One generation: continue `prompt` (tokens, at least one) by at most `max_tokens` tokens.

    With 0 tokens it ends once the prompt is evaluated."""

    prompt: tuple[int, ...]
    max_tokens: int
    sampling: SamplingParams
    client: str = ""
    """Name of the requesting client. Clients whose jobs wait for a slot get one in turn."""
    affinity: str = ""
    """Affinity group: jobs of one group continue each other's tokens and replace their own group's cached slot rather
    than another's. Empty: no group."""
    savable: bool = False
    """True if the KV cache of its tokens may be written to a disk. False if the request was not to be stored."""
    cache_seconds: float = 0.0
    """Seconds for which its tokens should remain in the prefix cache after the job begins. 0: until other prompts need
    the memory more."""
    checkpoints: tuple[int, ...] = ()
    """Positions in the prompt, in ascending order, where a later prompt may part from it. A model whose saved state
    cannot be cut saves it there."""
    grammar: Grammar | None = None
    """Grammar of the answer. The generation fails once the output no longer matches it."""
    top_logprobs: int | None = None
    """Number of most likely tokens in each `Token.logprobs`. None: no logprobs."""
    lane: Lane = Lane.INTERACTIVE
    timed: bool = False
    """True if `StepTimes` precede the other outputs of each step."""


class StepTimes(Struct, frozen=True, gc=False):
    """Times of one step of a timed job, in seconds of `time.perf_counter`. They precede the step's other outputs."""

    begun: float
    """Time at which the model's decode began."""
    decoded: float
    """Time at which the model's decode ended."""
    sampled: float
    """Time at which the job's tokens of this step were picked."""


class Started(Struct, frozen=True):
    """The first output, apart from times: the job has a slot, and its first prompt tokens are evaluated."""

    cached_tokens: int
    """Prompt tokens that the KV cache already contained."""


class Progress(Struct, frozen=True):
    """A part of the prompt was evaluated; more of it follows."""

    evaluated_tokens: int
    """Prompt tokens that the KV cache contains so far."""


class TokenLogprobs(Struct, frozen=True, gc=False):
    """Natural-log probabilities from the model's own logits, before penalties, biases and grammar masks."""

    logprob: float
    top: tuple[tuple[int, float], ...]
    """The most likely tokens with their logprobs, best first."""


class Token(Struct, frozen=True, gc=False):
    """A token of the answer. End tokens are never delivered: `Finished` takes their place."""

    id: int
    logprobs: TokenLogprobs | None = None
    """None if the job has no `top_logprobs`."""
    forced: bool = False
    """True if the grammar made the token certain."""


class FinishReason(Enum):
    """Reason why a generation ended."""

    STOP = "stop"
    """The model produced an end token."""
    LENGTH = "length"
    """`max_tokens` were produced, or the context is full."""
    FAILED = "failed"
    """The model could not evaluate a step; `Finished.message` gives the cause."""
    GRAMMAR = "grammar"
    """The output no longer matched the job's grammar; `Finished.message` gives the cause."""


class Finished(Struct, frozen=True):
    """The last output of every generation."""

    reason: FinishReason
    message: str = ""


EngineOutput: TypeAlias = StepTimes | Started | Progress | Token | Finished
