"""Servers that continue tokens: the request of each, and the parts of its answer. Pure.

Each has a form of its own, since tokens must come back as ids: llama.cpp's `/completion` with `return_tokens`, vLLM's
`/v1/completions` with `return_token_ids`, SGLang's `/generate`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from engine.constraint import Grammar
from engine.job import FinishReason, SamplingParams, Token
from engine.structured_output import StructuralTag
from server.upstream.transport import MIN_TOP_P, Address


class Syntax(StrEnum):
    """Syntax of the grammars that a server reads."""

    NONE = "none"
    LARK = "lark"
    EBNF = "ebnf"


class Continuation(Struct, frozen=True):
    """One request: tokens to continue."""

    prompt: Sequence[int]
    max_tokens: int
    sampling: SamplingParams
    top_logprobs: int | None = None
    ends: Sequence[int] = ()
    """Tokens that end the answer."""
    grammar: str = ""
    """Grammar of the answer, in the server's syntax; empty for none."""
    allowed: Sequence[int] = ()
    """Tokens to choose from, for a server with a field for them; empty for all."""
    streams: bool = True
    """False if the answer comes as one JSON value."""


class AnswerPart(Struct, frozen=True):
    """A part of an answer."""

    tokens: Sequence[Token] = ()
    finish: FinishReason | None = None
    cached: int | None = None
    """Tokens of the prompt that the server's cache had; None if this part does not have the number."""
    evaluated: int | None = None
    """Tokens of the prompt that are evaluated so far."""
    text: str = ""
    """Text of the tokens by the server's own vocabulary."""
    last: bool = False
    """True if nothing more follows."""
    lost: int = 0
    """Tokens of the answer that no part has."""


class PartReader(Protocol):
    """The answer to one request."""

    def part(self, data: bytes) -> AnswerPart:
        """Return the part in the data of one event, or in the body of an answer that is not a stream.

        Raises ValueError if it is none, UpstreamFault for an error of the server.
        """
        ...


class TokenServer(Protocol):
    """A kind of server."""

    @property
    def name(self) -> str: ...

    @property
    def sampling(self) -> Mapping[str, str]:
        """Names of its sampling fields by ours. Ours that are missing it does not have."""
        ...

    @property
    def choice(self) -> str:
        """Field by which the next token can be limited to some: `logit_bias`, or one of its own."""
        ...

    @property
    def syntax(self) -> Syntax: ...

    def target(self, address: Address) -> str:
        """Return the path to ask."""
        ...

    def body(self, model: str, asked: Continuation, refused: frozenset[str]) -> dict[str, Any]:
        """Return the body of a request. `refused`: sampling fields that it refuses, by our names."""
        ...

    def reader(self, url: str, asked: Continuation) -> PartReader:
        """Return the reader of the answer. `url`: for errors."""
        ...


NEUTRAL = SamplingParams(temperature=-1.0, top_p=1.0, top_k=0, min_p=0.0)
"""Values that change nothing; a temperature always does."""


def sampling_fields(
    sampling: SamplingParams, names: Mapping[str, str], refused: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """Return the sampling fields of a request. Neutral values are sent too: servers have defaults of their own."""
    fields = {name: getattr(sampling, ours) for ours, name in names.items() if ours not in refused}
    bias = {str(id_): value for id_, value in sampling.logit_bias.items()}
    if "logit_bias" in fields:
        fields["logit_bias"] = bias or None
    if fields.get("top_p") == 0:
        fields["top_p"] = MIN_TOP_P
    return {name: value for name, value in fields.items() if value is not None}


def continued(sampling: SamplingParams, written: Sequence[int], names: Mapping[str, str]) -> SamplingParams:
    """Return the settings to continue an answer: other draws, and penalties for the tokens that are written.

    Servers that count the answer only count it from the beginning of their request.
    """
    if not written:
        return sampling
    seed = None if sampling.seed is None else sampling.seed + len(written)
    biases = dict(sampling.logit_bias)
    if "repeat_last_n" not in names and (sampling.presence_penalty or sampling.frequency_penalty):
        for id_, count in Counter(written).items():
            penalty = sampling.presence_penalty + count * sampling.frequency_penalty
            biases[id_] = biases.get(id_, 0.0) - penalty
    return replace(sampling, seed=seed, logit_bias=biases)


def wanted_fields(sampling: SamplingParams) -> set[str]:
    """Return the sampling fields that have an effect on an answer."""
    wanted = {name for name in NEUTRAL.__struct_fields__ if getattr(sampling, name) != getattr(NEUTRAL, name)}
    return wanted | {"repeat_last_n"} if "repeat_penalty" in wanted else wanted - {"repeat_last_n"}


def grammar_text(grammar: Grammar, syntax: Syntax) -> str:
    """Return the text of an answer's grammar; empty if there is none in this syntax."""
    if not isinstance(grammar, StructuralTag):
        return ""
    match syntax:
        case Syntax.LARK:
            return grammar.lark
        case Syntax.EBNF:
            return grammar.ebnf
        case Syntax.NONE:
            return ""
