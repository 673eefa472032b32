"""llama.cpp's server: `/completion` (its `tools/server/README.md`). Pure.

Its stream leaves out tokens that end within a character, and counts them. They are found again by the text.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from engine.job import FinishReason, Token, TokenLogprobs
from engine.tokenizer import Vocabulary
from server.upstream.tokens.servers import AnswerPart, Continuation, Syntax, sampling_fields
from server.upstream.transport import Address, faults

MAX_SEED = 0x7FFFFFFF
FIELDS = ("content", "tokens", "completion_probabilities", "stop", "stop_type", "tokens_predicted", "timings/cache_n")
"""Fields of the last part. Without a choice it repeats the prompt and all settings."""


class _Likely(Struct):
    id: int
    logprob: float


class _Chosen(_Likely):
    top_logprobs: list[_Likely] = []


class _PromptProgress(Struct):
    cache: int = 0
    processed: int = 0


class _LlamaPart(Struct):
    content: str = ""
    tokens: list[int] = []
    completion_probabilities: list[_Chosen] = []
    prompt_progress: _PromptProgress | None = None
    tokens_predicted: int = 0
    cached: int | None = msgspec.field(default=None, name="timings/cache_n")
    stop: bool = False
    stop_type: str = ""
    error: Any = None


_decode = msgspec.json.Decoder(_LlamaPart).decode


class LlamaCppServer:
    name = "llama.cpp"
    choice = "logit_bias"
    syntax = Syntax.LARK
    sampling: Mapping[str, str] = {
        name: name
        for name in (
            *("temperature", "top_p", "top_k", "min_p", "seed", "presence_penalty", "frequency_penalty"),
            *("repeat_penalty", "repeat_last_n", "logit_bias"),
        )
    }

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def target(self, address: Address) -> str:
        return address.root + "/completion"

    def body(self, model: str, asked: Continuation, refused: frozenset[str]) -> dict[str, Any]:
        fields = sampling_fields(asked.sampling, self.sampling, refused)
        if "seed" in fields:
            fields["seed"] &= MAX_SEED
        if asked.top_logprobs is not None:
            fields["n_probs"] = max(asked.top_logprobs, 1)
        return {
            "model": model,
            "prompt": asked.prompt,
            "n_predict": asked.max_tokens,
            "stream": asked.streams,
            "cache_prompt": True,
            "return_tokens": True,
            "return_progress": asked.streams,
            "response_fields": FIELDS,
            **({"grammar": f"%llguidance {{}}\n{asked.grammar}"} if asked.grammar else {}),
            **fields,
        }

    def reader(self, url: str, asked: Continuation) -> "LlamaCppReader":
        return LlamaCppReader(url, self._vocabulary, asked.top_logprobs)


class LlamaCppReader:
    def __init__(self, url: str, vocabulary: Vocabulary, top_logprobs: int | None) -> None:
        self._url = url
        self._vocabulary = vocabulary
        self._top_logprobs = top_logprobs
        self._count = 0

    def part(self, data: bytes) -> AnswerPart:
        read = _decode(data)
        if read.error is not None:
            raise faults.failed(self._url, read.error)
        progress = read.prompt_progress
        if progress is not None and not read.tokens_predicted:
            return AnswerPart(cached=progress.cache, evaluated=progress.processed)
        tokens = self._tokens(read) if read.tokens else []
        lost = max(read.tokens_predicted - self._count, 0) if read.stop else 0
        finish = None
        if read.stop:
            finish = FinishReason.LENGTH if read.stop_type == "limit" else FinishReason.STOP
        return AnswerPart(tokens, finish, read.cached, text=read.content, last=read.stop, lost=lost)

    def _tokens(self, read: _LlamaPart) -> list[Token]:
        missing = read.tokens_predicted - self._count - len(read.tokens)
        self._count = read.tokens_predicted
        ids = read.tokens if missing <= 0 else self._completed(read)
        chosen = read.completion_probabilities
        unknown = len(ids) - len(chosen)
        return [Token(id_, self._logprobs(chosen[n - unknown]) if n >= unknown else None) for n, id_ in enumerate(ids)]

    def _completed(self, read: _LlamaPart) -> list[int]:
        """Return the tokens of a text whose last tokens are known."""
        data, known = read.content.encode(), b"".join(map(self._vocabulary.bytes_of, read.tokens))
        ids = self._vocabulary.encode_bytes(data)
        if ids[-len(read.tokens) :] == read.tokens:
            return ids
        return [*self._vocabulary.encode_bytes(data.removesuffix(known)), *read.tokens]

    def _logprobs(self, chosen: _Chosen) -> TokenLogprobs | None:
        if self._top_logprobs is None:
            return None
        top = chosen.top_logprobs[: self._top_logprobs]
        return TokenLogprobs(chosen.logprob, tuple((each.id, each.logprob) for each in top))
