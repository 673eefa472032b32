"""Requests and answers of llama.cpp's server, vLLM and SGLang, by an engine of the scripted model."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from engine.backends import scripted
from engine.backends.scripted import END
from engine.constraint import Grammar
from engine.job import FinishReason, Job, SamplingParams, Token, TokenLogprobs
from engine.model import FloatArray
from engine.structured_output.compiler import GrammarCompiler
from tests.engine.grammar.ebnf.recognizer import EbnfGrammar
from tests.support.helpers import NAME

VOCABULARY = scripted.vocabulary()
FAULT = {"message": "Internal server error", "type": "InternalServerError", "param": None, "code": 500}


class Form:
    """Requests and answers of a kind of server."""

    owner = ""
    settings: ClassVar[dict[str, str]] = {}
    """Settings that the server shows, beside those of its start."""

    def job(self, body: dict[str, Any]) -> Job:
        raise NotImplementedError

    def parts(self, tokens: Sequence[Token], end: FinishReason | None, cached: int, count: int) -> list[dict[str, Any]]:
        """Return what a stream has for new tokens, or at its end. `count`: all tokens so far."""
        raise NotImplementedError

    def whole(self, tokens: Sequence[Token], end: FinishReason, cached: int) -> dict[str, Any]:
        """Return an answer that is no stream."""
        parts = self.parts(tokens, end, cached, len(tokens))
        return {**parts[-1], **parts[0]}

    def _sampling(self, fields: dict[str, Any], seed: str = "seed", repeat: str = "repeat_penalty") -> SamplingParams:
        return SamplingParams(
            temperature=fields.get("temperature", 1.0),
            top_p=fields.get("top_p", 1.0),
            top_k=max(fields.get("top_k", 0), 0),
            min_p=fields.get("min_p", 0.0),
            seed=fields.get(seed),
            presence_penalty=fields.get("presence_penalty", 0.0),
            frequency_penalty=fields.get("frequency_penalty", 0.0),
            repeat_penalty=fields.get(repeat, 1.0),
            logit_bias={int(id_): value for id_, value in (fields.get("logit_bias") or {}).items()},
        )


class LlamaCppForm(Form):
    owner = "llamacpp"

    def job(self, body: dict[str, Any]) -> Job:
        top = body.get("n_probs") or None
        return Job(tuple(body["prompt"]), body["n_predict"], self._sampling(body), top_logprobs=top)

    def parts(self, tokens: Sequence[Token], end: FinishReason | None, cached: int, count: int) -> list[dict[str, Any]]:
        """Leave out a token that ends within a character, as llama.cpp does."""
        last: list[dict[str, Any]] = [self._last(end, cached, count)] if end is not None else []
        text = b"".join(VOCABULARY.bytes_of(each.id) for each in tokens)
        if not tokens or not _is_complete(text):
            return last
        part = {"content": text.decode(), "tokens": [tokens[-1].id], "stop": False, "tokens_predicted": count}
        return [part | {"completion_probabilities": self._likely(tokens[-1:])}, *last]

    def whole(self, tokens: Sequence[Token], end: FinishReason, cached: int) -> dict[str, Any]:
        text = b"".join(VOCABULARY.bytes_of(each.id) for each in tokens).decode(errors="ignore")
        part = {"content": text, "tokens": [each.id for each in tokens]}
        return self._last(end, cached, len(tokens)) | part | {"completion_probabilities": self._likely(tokens)}

    def _last(self, end: FinishReason, cached: int, count: int) -> dict[str, Any]:
        kind = "eos" if end is FinishReason.STOP else "limit"
        return {"stop": True, "stop_type": kind, "tokens_predicted": count, "timings/cache_n": cached}

    def _likely(self, tokens: Sequence[Token]) -> list[dict[str, Any]]:
        return [
            {
                "id": each.id,
                "logprob": each.logprobs.logprob,
                "top_logprobs": [{"id": id_, "logprob": logprob} for id_, logprob in each.logprobs.top],
            }
            for each in tokens
            if each.logprobs is not None
        ]


class VllmForm(Form):
    """vLLM 0.32.0 with XGrammar, the backend of its first JSON schema."""

    owner = "vllm"

    def __init__(self) -> None:
        self._body: dict[str, Any] = {}
        self._repeats: list[int] | None = None
        """The prompt, which the first part repeats."""

    def job(self, body: dict[str, Any]) -> Job:
        self._body, self._repeats = body, body["prompt"]
        sampling = self._sampling(body, repeat="repetition_penalty")
        limited = {id_: min(max(value, -100.0), 100.0) for id_, value in sampling.logit_bias.items()}
        allowed, wanted = body.get("allowed_token_ids"), body.get("structured_outputs")
        grammar = OnlyTokens(allowed) if allowed else None if wanted is None else _grammar(wanted["grammar"])
        return Job(
            prompt=tuple(body["prompt"]),
            max_tokens=body["max_tokens"],
            sampling=replace(sampling, logit_bias=limited),
            top_logprobs=body.get("logprobs"),
            grammar=grammar,
        )

    def parts(self, tokens: Sequence[Token], end: FinishReason | None, cached: int, count: int) -> list[dict[str, Any]]:
        if not tokens and end is None:
            return []
        choice: dict[str, Any] = {
            "index": 0,
            "text": b"".join(VOCABULARY.bytes_of(each.id) for each in tokens).decode(errors="ignore"),
            "logprobs": None,
            "finish_reason": end and end.value,
            "stop_reason": END if end is FinishReason.STOP else None,
            "prompt_token_ids": self._repeats,
            "token_ids": [each.id for each in tokens],
        }
        self._repeats = None
        if self._body.get("logprobs") is not None:
            found = [each.logprobs or TokenLogprobs(0.0, ((each.id, 0.0),)) for each in tokens]
            top = [
                {f"token_id:{id_}": logprob for id_, logprob in ((token.id, each.logprob), *each.top)}
                for token, each in zip(tokens, found, strict=True)
            ]
            names = [f"token_id:{each.id}" for each in tokens]
            choice["logprobs"] = {
                "text_offset": [0] * len(tokens),
                "token_logprobs": [each.logprob for each in found],
                "tokens": names,
                "top_logprobs": top,
            }
        head = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": NAME}
        usage: dict[str, Any] = {"prompt_tokens": 1, "total_tokens": 1 + count, "completion_tokens": count}
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
        counts = (self._body.get("stream_options") or {}).get("include_usage") or not self._body["stream"]
        return [head | {"choices": [choice]}, *([head | {"choices": [], "usage": usage}] if end and counts else [])]


def _grammar(text: str) -> Grammar:
    """Return the grammar. Raises ServerFault for one that XGrammar does not read: vLLM finds that too late."""
    if "(?s:" in text or " & " in text:
        raise ServerFault(500, {"error": FAULT})
    return GrammarCompiler(VOCABULARY).lark(text)


class ServerFault(Exception):
    """The server answers with an error."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__()
        self.status = status
        self.body = body


class OnlyTokens(Struct, frozen=True):
    """A grammar of one token, and of anything behind it."""

    ids: Sequence[int]

    def start(self) -> "OnlyTokens":
        return self

    @property
    def mask_ready(self) -> bool:
        return True

    def compute_mask(self) -> None: ...

    def apply_mask(self, logits: FloatArray) -> None:
        allowed = logits[list(self.ids)]
        logits[:] = -np.inf
        logits[list(self.ids)] = allowed

    def fits(self, token: int) -> bool:
        return False

    def accept(self, token: int) -> None: ...

    def forced(self) -> Sequence[int]:
        return ()


def _is_complete(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


class SglangForm(Form):
    """SGLang 0.5.23 with XGrammar, its default backend."""

    owner = "sglang"
    settings: ClassVar = {"grammar_backend": "xgrammar"}
    incremental = False
    """True with `--incremental-streaming-output`: parts have the new tokens only."""

    def __init__(self) -> None:
        self._all: list[Token] = []
        self._top: int | None = None
        self._streams = False

    def job(self, body: dict[str, Any]) -> Job:
        fields, self._streams = body["sampling_params"], body["stream"]
        if not 0 < fields.get("top_p", 1.0) <= 1:
            raise self._refusal(f"top_p must be in (0, 1], got {fields['top_p']}.")
        grammar = self._grammar(fields["ebnf"]) if "ebnf" in fields else None
        sampling = self._sampling(fields, "sampling_seed", "repetition_penalty")
        self._top = body.get("top_logprobs_num") if body.get("return_logprob") else None
        return Job(
            tuple(body["input_ids"]), fields["max_new_tokens"], sampling, top_logprobs=self._top, grammar=grammar
        )

    def _grammar(self, text: str) -> Grammar:
        """Return the grammar. Raises ServerFault for one in Lark."""
        if " ::= " not in text:
            raise self._aborted("Failed to compile ebnf grammar: Unexpected character: ':'\n")
        return EbnfGrammar(text, VOCABULARY)

    def parts(self, tokens: Sequence[Token], end: FinishReason | None, cached: int, count: int) -> list[dict[str, Any]]:
        if not tokens and end is None:
            return []
        self._all += tokens
        shown = tokens if self.incremental else self._all
        reason: dict[str, Any] | None = None
        if end is not None:
            reason = (
                {"type": "stop", "matched": END} if end is FinishReason.STOP else {"type": "length", "length": count}
            )
        return [self._part(shown, reason, cached)]

    def _part(self, tokens: Sequence[Token], reason: dict[str, Any] | None, cached: int) -> dict[str, Any]:
        data = b"".join(VOCABULARY.bytes_of(each.id) for each in tokens if each.id != END)
        meta: dict[str, Any] = {
            "id": "a39c1c23243c48adac2e9685c47b728d",
            "finish_reason": reason,
            "prompt_tokens": 1,
            "weight_version": "default",
            "num_retractions": 0,
            "reasoning_tokens": 0,
            "completion_tokens": len(self._all),
            "cached_tokens": cached,
            "cached_tokens_details": {"device": cached, "host": 0},
            "dp_rank": None,
        }
        if self._top is not None:
            found = [(each.id, each.logprobs or TokenLogprobs(0.0, ((each.id, 0.0),))) for each in tokens]
            meta["input_token_logprobs"] = meta["input_top_logprobs"] = []
            meta["output_token_logprobs"] = [[each.logprob, id_, None] for id_, each in found]
            meta["output_token_logprobs_length"] = len(self._all)
            meta["output_top_logprobs"] = [[[value, id_, None] for id_, value in each.top] for _, each in found]
        return {"text": data.decode(errors="replace"), "output_ids": [each.id for each in tokens], "meta_info": meta}

    def _refusal(self, message: str) -> "ServerFault":
        more = {"type": "invalid_request_error", "code": 400, "retryable": False} if self._streams else {}
        return ServerFault(400, {"error": {"message": message, **more}})

    def _aborted(self, message: str) -> "ServerFault":
        """Return the answer to a request that the scheduler refuses, which has a token that the model did not write."""
        if not self._streams:
            return self._refusal(message)
        reason = {"type": "abort", "message": message, "status_code": 400, "err_type": "BadRequestError"}
        self._all.append(Token(0))
        return ServerFault(400, self._part(self._all, reason, 0))


class IncrementalSglangForm(SglangForm):
    """SGLang that was started with `--incremental-streaming-output --grammar-backend llguidance`."""

    settings: ClassVar = {"grammar_backend": "llguidance"}
    incremental = True

    def _grammar(self, text: str) -> Grammar:
        if " ::= " in text:
            raise self._aborted("Failed to compile ebnf grammar")
        return GrammarCompiler(VOCABULARY).lark(text)


FORMS: dict[str, type[Form]] = {
    "llama.cpp": LlamaCppForm,
    "vLLM": VllmForm,
    "SGLang": SglangForm,
    "SGLang with new tokens": IncrementalSglangForm,
}
