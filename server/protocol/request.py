"""Body of `POST /v1/responses`. Other fields are skipped: clients send many, and a 4xx would exclude these clients.

Items and parts are decoded one by one, by their `type`, so that an unknown one does not invalidate the others.
"""

from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Meta, Struct

from server.protocol.decoding import read
from server.protocol.errors import InvalidRequest
from server.protocol.fields import REFUSED, refuse_fields
from server.protocol.formats import PLAIN, Format, TextOptions
from server.protocol.prompt_cache import Breakpoint, ResponseCacheOptions, Retention

S = TypeVar("S", bound=Struct)
NULL = msgspec.Raw(b"null")
NULL_DEFAULT: Any = msgspec.field(default_factory=lambda: NULL)
"""Default of raw fields. It is a factory, since msgspec's JSON Schema cannot show a raw default."""
Stop: TypeAlias = Annotated[str, Meta(max_length=1000)]
Stops: TypeAlias = Stop | Annotated[list[Stop], Meta(max_length=16)]
Temperature: TypeAlias = Annotated[float, Meta(ge=0, le=2)]
Fraction: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
Penalty: TypeAlias = Annotated[float, Meta(ge=-2, le=2)]
RepeatPenalty: TypeAlias = Annotated[float, Meta(gt=0, le=10)]
Window: TypeAlias = Annotated[int, Meta(ge=-1, le=1_000_000)]
LogitBias: TypeAlias = dict[Annotated[int, Meta(ge=0)], Annotated[float, Meta(ge=-100, le=100)]]
TopK: TypeAlias = Annotated[int, Meta(ge=-1, le=1_000_000)]
Top: TypeAlias = Annotated[int, Meta(ge=0, le=20)]
Seed: TypeAlias = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Count: TypeAlias = Annotated[int, Meta(ge=1)]
Limit: TypeAlias = Annotated[int, Meta(ge=-1)]
"""Limit of tokens; -1 means no limit, as in llama.cpp and vLLM. `with_limits` refuses 0."""
Effort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Metadata: TypeAlias = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]


class ReasoningOptions(Struct, frozen=True):
    """Field `reasoning` of a request."""

    effort: Effort | None = None
    summary: str | None = None
    context: Literal["auto", "current_turn", "all_turns"] | None = None
    """Turns whose reasoning the prompt has; `auto` and `all_turns` leave it to the template."""
    mode: str | None = None
    """OpenAI's modes are `standard` and `pro`; here is only the first."""
    generate_summary: str | None = None
    """Earlier name of `summary` (OpenAI)."""

    @property
    def chosen_summary(self) -> str | None:
        return self.generate_summary if self.summary is None else self.summary


class ObjectId(Struct, frozen=True):
    """Reference to a stored object."""

    id: str


class ContextManagement(Struct, frozen=True):
    """Entry of `context_management`. OpenAI knows the type `compaction` only."""

    type: str
    compact_threshold: Count | None = None
    """Tokens of the prompt from which on the conversation is compacted."""


class BackgroundOptions(Struct, frozen=True):
    """Field `background_options`. Every response begins as soon as there is a slot, so each window is met."""

    completion_window: Literal["soonest", "2h", "8h"] | None = None
    continuation_id: str | None = None
    """Name of related requests: they prefer one slot of the KV cache."""


class StreamOptions(Struct, frozen=True):
    """Field `stream_options`. Obfuscation, which hides the lengths of deltas from eavesdroppers, is not supported."""

    include_obfuscation: bool | None = None


class SamplingFields(Struct, frozen=True, kw_only=True):
    """Sampling fields and stop strings, equal in all three APIs. Limits: OpenAI's API.

    OpenAI's Responses API has only `temperature` and `top_p`. `repeat_penalty` and `repeat_last_n` are llama.cpp's;
    `repetition_penalty` is another name of `repeat_penalty`.
    """

    temperature: Temperature | None = None
    top_p: Fraction | None = None
    top_k: TopK | None = None
    min_p: Fraction | None = None
    seed: Seed | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repeat_penalty: RepeatPenalty | None = None
    repetition_penalty: RepeatPenalty | None = None
    repeat_last_n: Window | None = None
    logit_bias: LogitBias | None = None
    ignore_eos: bool | None = None
    """Extension, as in vLLM and llama.cpp: the model cannot end the answer, so that all answers have equal lengths."""
    stop: Stops | None = None


def sampling_fields(request: SamplingFields) -> dict[str, Any]:
    """Return these fields of a request, for another request."""
    return {name: getattr(request, name) for name in SamplingFields.__struct_fields__}


class RequestBody(SamplingFields, frozen=True, kw_only=True):
    """Body of a request for an answer, in any of the three APIs."""

    model: str | None = None
    stream: bool | None = None
    return_token_times: bool | None = None
    """Extension: the end of the answer has the times of each token, if the server has the setting."""


class Request(RequestBody, frozen=True):
    """Body of the request. Limits: OpenAI's API; `return_progress` is llama.cpp's."""

    input: str | list[msgspec.Raw] | None = None
    instructions: str | None = None
    include: list[str] | None = None
    top_logprobs: Top | None = None
    max_output_tokens: Limit | None = None
    truncation: Literal["auto", "disabled"] | None = None
    text: TextOptions | None = None
    metadata: Metadata | None = None
    prompt: msgspec.Raw = NULL_DEFAULT
    """Template stored by OpenAI; `decode` refuses it."""
    max_tool_calls: Count | None = None
    service_tier: str | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: ResponseCacheOptions | None = None
    prompt_cache_retention: Retention | None = None
    safety_identifier: str | None = None
    parallel_tool_calls: bool | None = None
    store: bool | None = None
    background: bool | None = None
    background_options: BackgroundOptions | None = None
    previous_response_id: str | None = None
    conversation: str | ObjectId | None = None
    context_management: list[ContextManagement] | None = None
    client_metadata: msgspec.Raw = NULL_DEFAULT
    """Notes of the client about itself, for OpenAI's logs (openai/codex); they ask for nothing."""
    return_progress: bool | None = None
    reasoning: ReasoningOptions | None = None
    tools: list[msgspec.Raw] | None = None
    tool_choice: msgspec.Raw = NULL_DEFAULT
    chat_template_kwargs: dict[str, Any] | None = None
    """Variables of the chat template, as in vLLM and llama.cpp's server."""

    @property
    def format(self) -> Format:
        """Output format."""
        return self.text.format or PLAIN if self.text else PLAIN

    @property
    def prewarms(self) -> bool:
        """True if the prompt is evaluated and nothing is generated."""
        return self.prompt_cache_options is not None and self.prompt_cache_options.prewarm is True

    @property
    def conversation_id(self) -> str | None:
        return self.conversation.id if isinstance(self.conversation, ObjectId) else self.conversation


class Retrieval(Struct, frozen=True):
    """Query of `GET /v1/responses/{id}`."""

    stream: bool = False
    starting_after: Annotated[int, Meta(ge=-1, lt=2**53)] = -1


class Listing(Struct, frozen=True):
    """Query of a list."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    order: Literal["asc", "desc"] = "desc"
    after: str | None = None


class TypeAndRole(Struct, frozen=True):
    """Discriminating fields of an item or a part. Messages and references may have no type."""

    type: str | None = None
    role: str | None = None
    prompt_cache_breakpoint: Breakpoint | None = None


_request = msgspec.json.Decoder(Request)
KNOWN = frozenset(Request.__struct_fields__)
MEMBERS = {
    "background_options": frozenset(BackgroundOptions.__struct_fields__),
    "reasoning": frozenset(ReasoningOptions.__struct_fields__),
    "stream_options": frozenset(StreamOptions.__struct_fields__),
    "text": frozenset(TextOptions.__struct_fields__),
}
"""Field -> known members of its object."""


def decode(body: bytes) -> Request:
    """Decode a body. Raises InvalidRequest, which names the field."""
    request = with_limits(read(body, _request), "max_output_tokens")
    if request.prompt != NULL:
        raise InvalidRequest(
            "`prompt` is not supported; send the template's text as `instructions` and `input`.", param="prompt"
        )
    refuse_fields(body, REFUSED)
    return request


def with_limits(request: S, *fields: str) -> S:
    """Return the request with None for limits of -1. Raises InvalidRequest for a limit of 0."""
    for field in fields:
        limit = getattr(request, field)
        if limit == 0:
            raise InvalidRequest(f"`{field}` must be at least 1.", param=field)
        if limit == -1:
            request = msgspec.structs.replace(request, **{field: None})
    return request
