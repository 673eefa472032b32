"""What clients may send. Fields not named here are skipped: clients send many, and a 4xx would lock them out.

Items and parts are decoded one by one, by their `type`: what is unknown must not make the rest unreadable.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Meta, Struct

from server.protocol.decoding import refused
from server.protocol.errors import InvalidRequest
from server.protocol.fields import REFUSED, refuse_fields
from server.protocol.formats import PLAIN, Format, TextWish

T = TypeVar("T")
NULL = msgspec.Raw(b"null")
Stop: TypeAlias = Annotated[str, Meta(max_length=1000)]
Stops: TypeAlias = Stop | Annotated[list[Stop], Meta(max_length=16)]
Temperature: TypeAlias = Annotated[float, Meta(ge=0, le=2)]
Share: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
Penalty: TypeAlias = Annotated[float, Meta(ge=-2, le=2)]
RepeatPenalty: TypeAlias = Annotated[float, Meta(gt=0, le=10)]
Window: TypeAlias = Annotated[int, Meta(ge=-1, le=1_000_000)]
LogitBias: TypeAlias = dict[Annotated[int, Meta(ge=0)], Annotated[float, Meta(ge=-100, le=100)]]
TopK: TypeAlias = Annotated[int, Meta(ge=-1, le=1_000_000)]
Top: TypeAlias = Annotated[int, Meta(ge=0, le=20)]
Seed: TypeAlias = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Count: TypeAlias = Annotated[int, Meta(ge=1)]
Limit: TypeAlias = Annotated[int, Meta(ge=-1)]
"""-1 is no limit, as llama.cpp and vLLM have it; `limited` refuses 0."""
Effort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Metadata: TypeAlias = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]


class ReasoningWish(Struct, frozen=True):
    """`reasoning`."""

    effort: Effort | None = None
    summary: str | None = None


class Named(Struct, frozen=True):
    """Something of ours, by its id."""

    id: str


class StreamOptions(Struct, frozen=True):
    """`stream_options`. Obfuscation hides the lengths of deltas from who watches the net; there is none here."""

    include_obfuscation: bool | None = None


class SamplingFields(Struct, frozen=True, kw_only=True):
    """Fields that say how tokens are drawn, and where the text ends: the same in all three APIs. Bounds: OpenAI's.

    Its Responses API lacks all but `temperature` and `top_p`. `repeat_penalty` and `repeat_last_n` are llama.cpp's, and
    `repetition_penalty` is another name of the first.
    """

    temperature: Temperature | None = None
    top_p: Share | None = None
    top_k: TopK | None = None
    min_p: Share | None = None
    seed: Seed | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repeat_penalty: RepeatPenalty | None = None
    repetition_penalty: RepeatPenalty | None = None
    repeat_last_n: Window | None = None
    logit_bias: LogitBias | None = None
    stop: Stops | None = None


def sampling_fields(request: SamplingFields) -> dict[str, Any]:
    """Return these fields of a request, for another request."""
    return {name: getattr(request, name) for name in SamplingFields.__struct_fields__}


class Request(SamplingFields, frozen=True):
    """The body of `POST /v1/responses`. Bounds: OpenAI's API; `return_progress` is ours."""

    model: str | None = None
    input: str | list[msgspec.Raw] | None = None
    instructions: str | None = None
    stream: bool | None = None
    include: list[str] | None = None
    top_logprobs: Top | None = None
    max_output_tokens: Limit | None = None
    truncation: Literal["auto", "disabled"] | None = None
    text: TextWish | None = None
    metadata: Metadata | None = None
    prompt: msgspec.Raw = NULL
    """A template that is stored with OpenAI; `decode` refuses it."""
    max_tool_calls: Count | None = None
    service_tier: str | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    parallel_tool_calls: bool | None = None
    store: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: str | Named | None = None
    return_progress: bool | None = None
    reasoning: ReasoningWish | None = None
    tools: list[msgspec.Raw] | None = None
    tool_choice: msgspec.Raw = NULL
    chat_template_kwargs: dict[str, Any] | None = None
    """Variables of the chat template, as vLLM and llama.cpp's server take them."""

    @property
    def format(self) -> Format:
        """What the answer has to be."""
        return self.text.format or PLAIN if self.text else PLAIN

    @property
    def conversation_id(self) -> str | None:
        return self.conversation.id if isinstance(self.conversation, Named) else self.conversation


class Retrieval(Struct, frozen=True):
    """The query of `GET /v1/responses/{id}`."""

    stream: bool = False
    starting_after: Annotated[int, Meta(ge=-1, lt=2**53)] = -1


class Listing(Struct, frozen=True):
    """The query of a list."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    order: Literal["asc", "desc"] = "desc"
    after: str | None = None


class Typed(Struct, frozen=True):
    """What is looked at first in an item or a part. A message may come without its type, a reference too."""

    type: str | None = None
    role: str | None = None


class ItemReference(Struct, frozen=True):
    """`item_reference`, with and without `type`."""

    id: str | None = None


class MessageItem(Struct, frozen=True):
    """`message`, with and without `type`."""

    role: str
    content: str | list[msgspec.Raw] | None = None


class TextPart(Struct, frozen=True):
    """`input_text`, `output_text`, `text`."""

    text: str | None


class RefusalPart(Struct, frozen=True):
    refusal: str | None


class FilePart(Struct, frozen=True):
    """`input_file`. `file_data` is a data URL or the text itself."""

    file_data: str | None = None
    filename: str | None = None


class ChatFilePart(Struct, frozen=True):
    """`file`, as Chat Completions has it."""

    file: FilePart


class LoosePart(Struct, frozen=True):
    """A part of something replayed."""

    type: str
    text: str | None = None
    file_data: str | None = None


class LooseText(Struct, frozen=True):
    text: str = ""


_request = msgspec.json.Decoder(Request)
_loose_parts = msgspec.json.Decoder(list[LoosePart])
_loose_texts = msgspec.json.Decoder(str | list[str | LooseText] | None)
_text = msgspec.json.Decoder(str | None)
KNOWN = frozenset(Request.__struct_fields__)


def decode(body: bytes) -> Request:
    """Raises InvalidRequest, naming the field."""
    request = limited(read(body, _request), "max_output_tokens")
    if request.prompt != NULL:
        raise InvalidRequest(
            "There are no prompt templates here: send their text as `instructions` and `input`.", param="prompt"
        )
    refuse_fields(body, REFUSED)
    return request


def read(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """A whole body, as `bodies` cleans it. Raises InvalidRequest, naming the field."""
    if not body:
        raise InvalidRequest("The body is empty: send a JSON object.")
    return _decode(decoder, body, "")


S = TypeVar("S", bound=Struct)


def limited(request: S, *fields: str) -> S:
    """The request with None for limits of -1. Raises InvalidRequest for a limit of 0."""
    for field in fields:
        limit = getattr(request, field)
        if limit == 0:
            raise InvalidRequest(f"Expected `int` >= 1 in `{field}`.", param=field)
        if limit == -1:
            request = msgspec.structs.replace(request, **{field: None})
    return request


def query(parameters: Mapping[str, str], kind: type[T]) -> T:
    """Raises InvalidRequest, naming the parameter."""
    try:
        return msgspec.convert(parameters, kind, strict=False)
    except msgspec.ValidationError as error:
        raise refused(error) from error


def part(raw: msgspec.Raw, kind: type[T], place: str) -> T:
    """An item or a part of a known type; `place` is where it stands, for the error. Raises InvalidRequest."""
    return _decode(msgspec.json.Decoder(kind), bytes(raw), place)


def as_text(raw: msgspec.Raw) -> str:
    """A text as it is, nothing for null, and the JSON itself of anything else."""
    try:
        return _text.decode(raw) or ""
    except msgspec.ValidationError:
        return bytes(raw).decode()


def loose_text(raw: msgspec.Raw) -> str:
    """A text, or the texts of a list; nothing where there are none."""
    try:
        texts = _loose_texts.decode(raw) or ""
    except (msgspec.ValidationError, RecursionError):
        return ""
    if isinstance(texts, str):
        return texts
    return "\n\n".join(filter(None, (part if isinstance(part, str) else part.text for part in texts)))


def loose_parts(raw: msgspec.Raw) -> list[LoosePart] | None:
    """None where it is no list of parts."""
    try:
        return _loose_parts.decode(raw)
    except (msgspec.ValidationError, RecursionError):
        return None


def _decode(decoder: msgspec.json.Decoder[T], data: bytes, place: str) -> T:
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        raise refused(error, place, decoder.type, data) from error
    except RecursionError as error:
        raise InvalidRequest("The body is nested too deeply.") from error
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}.") from error
