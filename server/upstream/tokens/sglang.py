"""SGLang: `/generate` with `input_ids` (SGLang's `GenerateReqInput` and `SamplingParams`). Pure.

A part has all tokens so far, or the new ones only, as the server is started (`--incremental-streaming-output`); the
count of all shows which.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from engine.job import FinishReason, Token, TokenLogprobs
from server.upstream.tokens.servers import AnswerPart, Continuation, Syntax, sampling_fields
from server.upstream.transport import DONE, Address, faults

SYNTAXES = {"llguidance": Syntax.LARK, "outlines": Syntax.NONE, "none": Syntax.NONE}
"""Syntax of the field `ebnf` by the backend of grammars; XGrammar's is EBNF."""
Likely = tuple[float | None, int, str | None]
"""Logprob, id and text of a token."""


class _End(Struct):
    type: str = ""
    message: str | None = None
    status_code: int | None = None


class _MetaInfo(Struct, frozen=True):
    completion_tokens: int = 0
    cached_tokens: int | None = None
    finish_reason: _End | None = None
    output_token_logprobs: list[Likely] | None = None
    output_top_logprobs: list[list[Likely] | None] | None = None


class _Generated(Struct):
    text: str = ""
    output_ids: list[int] | None = None
    meta_info: _MetaInfo = _MetaInfo()
    error: Any = None


_decode = msgspec.json.Decoder(_Generated).decode


class SglangServer:
    name = "SGLang"
    choice = "logit_bias"
    sampling: Mapping[str, str] = {
        **{name: name for name in ("temperature", "top_p", "top_k", "min_p", "logit_bias")},
        **{name: name for name in ("presence_penalty", "frequency_penalty")},
        "repeat_penalty": "repetition_penalty",
        "seed": "sampling_seed",
    }

    def __init__(self, grammar_backend: str = "") -> None:
        """`grammar_backend`: reader of grammars; empty for SGLang's default, XGrammar."""
        self.syntax = SYNTAXES.get(grammar_backend, Syntax.EBNF)

    def target(self, address: Address) -> str:
        return address.root + "/generate"

    def body(self, model: str, asked: Continuation, refused: frozenset[str]) -> dict[str, Any]:
        fields = sampling_fields(asked.sampling, self.sampling, refused)
        if asked.grammar:
            fields["ebnf"] = asked.grammar
        if fields.get("top_k") == 0:
            fields["top_k"] = -1
        logprobs = asked.top_logprobs
        return {
            "input_ids": asked.prompt,
            "sampling_params": {"max_new_tokens": asked.max_tokens, "stop_token_ids": asked.ends, **fields},
            "stream": asked.streams,
            **({} if logprobs is None else {"return_logprob": True, "top_logprobs_num": logprobs}),
        }

    def reader(self, url: str, asked: Continuation) -> "SglangReader":
        return SglangReader(url, asked)


class SglangReader:
    def __init__(self, url: str, asked: Continuation) -> None:
        self._url = url
        self._asked = asked
        self._count = 0
        self._text = ""

    def part(self, data: bytes) -> AnswerPart:
        if data == DONE:
            return AnswerPart(last=True)
        read = _decode(data)
        meta = read.meta_info
        end = meta.finish_reason
        if (error := _error(read)) is not None:
            raise faults.failed(self._url, error)
        if read.output_ids is None and read.text:
            raise ValueError("its tokens have no ids (`output_ids`)")
        tokens = self._tokens(read)
        finish = None
        if end is not None:
            finish = FinishReason.LENGTH if end.type == "length" else FinishReason.STOP
        text, self._text = read.text.removeprefix(self._text), read.text
        return AnswerPart(tokens, finish, meta.cached_tokens, text=text, last=not self._asked.streams)

    def _tokens(self, read: _Generated) -> list[Token]:
        meta = read.meta_info
        new = max(meta.completion_tokens - self._count, 0)
        self._count += new
        if not new:
            return []
        ids = (read.output_ids or [])[-new:]
        if self._asked.top_logprobs is None or not meta.output_token_logprobs:
            return [Token(id_) for id_ in ids]
        chosen = meta.output_token_logprobs[-new:]
        tops = (meta.output_top_logprobs or [])[-new:] or [None] * len(ids)
        return [_likely_token(*each) for each in zip(ids, chosen, tops, strict=True)]


def _error(read: _Generated) -> Any:
    """Return the error that ends an answer; None for an answer that goes on, or has ended well."""
    end = read.meta_info.finish_reason
    if read.error is None and end is not None and end.type == "abort":
        return {"message": end.message, "code": end.status_code}
    return read.error


def _likely_token(id_: int, chosen: Likely, top: list[Likely] | None) -> Token:
    return Token(id_, TokenLogprobs(chosen[0] or 0.0, _top(top or [])))


def _top(top: list[Likely]) -> tuple[tuple[int, float], ...]:
    return tuple((id_, logprob or 0.0) for logprob, id_, _ in top)
