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
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[AddedCall] | None = None


class LikelyToken(Struct):
    token: str
    logprob: float
    bytes: list[int] | None = None


class WrittenToken(LikelyToken):
    top_logprobs: list[LikelyToken] | None = None


class WrittenTokens(Struct):
    content: list[WrittenToken] | None = None


class ReadChoice(Struct):
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
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: PromptCounts | None = None
    completion_tokens_details: CompletionCounts | None = None


class ReadChunk(Struct):
    choices: list[ReadChoice] = []
    usage: ReportedUsage | None = None
    error: Any = None


decode_chunk = msgspec.json.Decoder(ReadChunk).decode
