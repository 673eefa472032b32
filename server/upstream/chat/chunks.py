"""Chunks of a streamed chat completion, as upstreams send them. Data only.

Fields of OpenAI's API, with `reasoning_content` (llama.cpp, SGLang, DeepSeek) or `reasoning` (vLLM, OpenRouter) for
reasoning, and vLLM's `stop_reason`.
"""

from typing import Any

import msgspec
from msgspec import Struct


class AddedFunction(Struct):
    name: str | None = None
    arguments: str | None = None


class AddedCall(Struct):
    index: int | None = None
    id: str | None = None
    function: AddedFunction | None = None


class AddedDelta(Struct):
    content: str | None = None
    refusal: str | None = None
    """Text in place of the content, of OpenAI's models."""
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[AddedCall] | None = None
    function_call: AddedFunction | None = None
    """A call in the form before tools, which is not asked for."""


class LikelyToken(Struct):
    token: str
    logprob: float
    bytes: list[int] | None = None


class WrittenToken(LikelyToken):
    top_logprobs: list[LikelyToken] | None = None


class WrittenTokens(Struct):
    content: list[WrittenToken] | None = None


class ReadChoice(Struct):
    index: int | None = None
    delta: AddedDelta | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    """Stop string that ended the output; of vLLM only."""
    logprobs: WrittenTokens | None = None


class PromptCounts(Struct):
    cached_tokens: int | None = None


class CompletionCounts(Struct):
    reasoning_tokens: int | None = None


class ReportedUsage(Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptCounts | None = None
    completion_tokens_details: CompletionCounts | None = None


class ReadChunk(Struct):
    object: str | None = None
    choices: list[ReadChoice] | None = None
    usage: ReportedUsage | None = None
    error: Any = None
    message: Any = None
    code: Any = None
    """With `message`, in chunks whose object is an error: those of older versions of vLLM."""

    @property
    def fault(self) -> Any:
        """Error inside a stream; None if the chunk is none."""
        return {"message": self.message, "code": self.code} if self.object == "error" else self.error

    @property
    def choice(self) -> ReadChoice | None:
        """The choice that was asked for: the first one."""
        for each in self.choices or ():
            if not each.index:
                return each
        return None


decode_chunk = msgspec.json.Decoder(ReadChunk).decode
