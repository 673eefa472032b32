"""vLLM: `/v1/completions` with `return_token_ids` (vLLM's `CompletionRequest`). Pure."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from engine.job import FinishReason, Token, TokenLogprobs
from server.upstream.tokens.servers import AnswerPart, Continuation, Syntax, sampling_fields
from server.upstream.transport import BROKEN_OFF, DONE, Address, faults

TOKEN_ID = "token_id:"
"""Prefix of a token's name in logprobs, by `return_tokens_as_token_ids`."""


class _Likelihoods(Struct):
    token_logprobs: list[float | None] = []
    top_logprobs: list[dict[str, float] | None] | None = None


class _Completed(Struct):
    index: int | None = None
    text: str = ""
    token_ids: list[int] | None = None
    finish_reason: str | None = None
    logprobs: _Likelihoods | None = None


class _PromptDetails(Struct):
    cached_tokens: int | None = None


class _CompletionUsage(Struct):
    prompt_tokens_details: _PromptDetails | None = None


class _Completion(Struct):
    choices: list[_Completed] = []
    usage: _CompletionUsage | None = None
    error: Any = None

    @property
    def choice(self) -> _Completed | None:
        """The choice that was asked for: the first one."""
        return next((each for each in self.choices if not each.index), None)


_decode = msgspec.json.Decoder(_Completion).decode


class VllmServer:
    name = "vLLM"
    choice = "allowed_token_ids"
    syntax = Syntax.LARK
    sampling: Mapping[str, str] = {
        **{name: name for name in ("temperature", "top_p", "top_k", "min_p", "seed", "logit_bias")},
        **{name: name for name in ("presence_penalty", "frequency_penalty")},
        "repeat_penalty": "repetition_penalty",
    }

    def target(self, address: Address) -> str:
        return address.path + "/completions"

    def body(self, model: str, asked: Continuation, refused: frozenset[str]) -> dict[str, Any]:
        fields = sampling_fields(asked.sampling, self.sampling, refused)
        if asked.top_logprobs is not None:
            fields |= {"logprobs": asked.top_logprobs, "return_tokens_as_token_ids": True}
        if asked.streams:
            fields["stream_options"] = {"include_usage": True}
        return {
            "model": model,
            "prompt": asked.prompt,
            "max_tokens": asked.max_tokens,
            "stream": asked.streams,
            "return_token_ids": True,
            "stop_token_ids": asked.ends,
            **({"structured_outputs": {"grammar": asked.grammar}} if asked.grammar else {}),
            **({"allowed_token_ids": asked.allowed} if asked.allowed else {}),
            **fields,
        }

    def reader(self, url: str, asked: Continuation) -> "VllmReader":
        return VllmReader(url, asked)


class VllmReader:
    def __init__(self, url: str, asked: Continuation) -> None:
        self._url = url
        self._asked = asked

    def part(self, data: bytes) -> AnswerPart:
        if data == DONE:
            return AnswerPart(last=True)
        read = _decode(data)
        if read.error is not None:
            raise faults.failed(self._url, read.error)
        details = None if read.usage is None else read.usage.prompt_tokens_details
        cached = None if details is None else details.cached_tokens
        last = not self._asked.streams
        choice = read.choice
        if choice is None:
            return AnswerPart(cached=cached, last=last)
        if choice.token_ids is None and choice.text:
            raise ValueError("its tokens have no ids (`return_token_ids`)")
        finish = None if choice.finish_reason is None else self._finish(choice.finish_reason)
        return AnswerPart(self._tokens(choice), finish, cached, text=choice.text, last=last)

    def _finish(self, reason: str) -> FinishReason:
        if reason in BROKEN_OFF:
            raise faults.cut(self._url, f"finish_reason {reason!r}")
        return FinishReason.LENGTH if reason == "length" else FinishReason.STOP

    def _tokens(self, choice: _Completed) -> list[Token]:
        ids, most, found = choice.token_ids or [], self._asked.top_logprobs, choice.logprobs
        if most is None or found is None:
            return [Token(id_) for id_ in ids]
        tops = found.top_logprobs or [None] * len(ids)
        return [
            Token(id_, TokenLogprobs(logprob or 0.0, _top(top or {}, most)))
            for id_, logprob, top in zip(ids, found.token_logprobs, tops, strict=True)
        ]


def _top(top: Mapping[str, float], most: int) -> tuple[tuple[int, float], ...]:
    """Return the most likely tokens; vLLM adds the chosen one to them."""
    found = [(int(name.removeprefix(TOKEN_ID)), logprob) for name, logprob in top.items()]
    return tuple(sorted(found, key=lambda each: -each[1])[:most])
