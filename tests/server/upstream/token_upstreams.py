"""Upstreams that continue tokens: servers over an engine, which answer as llama.cpp's server, vLLM and SGLang do."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import trio
from msgspec import Struct
from msgspec.structs import replace
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from engine.backends import scripted
from engine.backends.scripted import CONTROL, END, ScriptedModel
from engine.constraint import Grammar
from engine.job import Finished, FinishReason, Job, SamplingParams, Started, Token, TokenLogprobs
from engine.model import FloatArray
from engine.runtime.engine import Engine
from engine.structured_output.compiler import GrammarCompiler
from engine.tokenizer import BYTE_TO_UNICODE
from tests.engine.tokenizer import tokenizer_files
from tests.server.upstream.scripted_upstream import HEAD, LAST, Asked, Play, ScriptedUpstream, event, plays, status
from tests.support.helpers import NAME

VOCABULARY = scripted.vocabulary()
FAULT = {"message": "Internal server error", "type": "InternalServerError", "param": None, "code": 500}


def tokenizer_file(folder: Path, template: str = scripted.TEMPLATE) -> Path:
    """Write the vocabulary of the scripted model as `tokenizer.json`; return its path."""
    texts = [*(BYTE_TO_UNICODE[byte] for byte in range(256)), *CONTROL]
    tokenizer = Tokenizer(BPE({text: id_ for id_, text in enumerate(texts)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer_files.write(folder, tokenizer, CONTROL, eos_token=CONTROL[0], chat_template=template)


class Form:
    """Requests and answers of a kind of server."""

    owner = ""

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
        raise ServerFault
    return GrammarCompiler(VOCABULARY).lark(text)


class ServerFault(Exception):
    """The server answers with its internal error."""


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

    def accept(self, token: int) -> None: ...

    def forced(self) -> Sequence[int]:
        return ()


class SglangForm(Form):
    owner = "sglang"

    def __init__(self) -> None:
        self._all: list[Token] = []

    def job(self, body: dict[str, Any]) -> Job:
        self._all.clear()
        fields = body["sampling_params"]
        sampling = self._sampling(fields, "sampling_seed", "repetition_penalty")
        top = body.get("top_logprobs_num") if body.get("return_logprob") else None
        return Job(tuple(body["input_ids"]), fields["max_new_tokens"], sampling, top_logprobs=top)

    def parts(self, tokens: Sequence[Token], end: FinishReason | None, cached: int, count: int) -> list[dict[str, Any]]:
        self._all += tokens
        reason = None if end is None else {"type": end.value}
        meta: dict[str, Any] = {"completion_tokens": len(self._all), "cached_tokens": cached, "finish_reason": reason}
        found = [(each.id, each.logprobs) for each in self._all if each.logprobs is not None]
        if found:
            meta["output_token_logprobs"] = [[each.logprob, id_, None] for id_, each in found]
            meta["output_top_logprobs"] = [[[value, id_, None] for id_, value in each.top] for _, each in found]
        data = b"".join(VOCABULARY.bytes_of(each.id) for each in self._all)
        ids = [each.id for each in self._all]
        return [{"text": data.decode(errors="replace"), "output_ids": ids, "meta_info": meta}]


FORMS: dict[str, type[Form]] = {"llama.cpp": LlamaCppForm, "vLLM": VllmForm, "SGLang": SglangForm}


def generates(engine: Engine, kind: type[Form]) -> Play:
    """Answer each request by the engine."""

    async def play(stream: trio.SocketStream, asked: Asked) -> None:
        form, streams = kind(), asked.body["stream"]
        try:
            job = form.job(asked.body)
        except ServerFault:
            whole = status(500, json.dumps({"error": FAULT}).encode())
            await (plays(HEAD, event({"error": FAULT}), event(b"[DONE]") + LAST) if streams else whole)(stream, asked)
            return
        if any(not 0 <= id_ < len(VOCABULARY) for id_ in job.prompt):
            await status(400, b'{"error":{"message":"Token id 300 is out of vocabulary","code":400}}')(stream, asked)
            return
        if streams:
            await stream.send_all(HEAD)
        written: list[Token] = []
        shown = cached = 0
        with engine.generate(job) as outputs:
            async for output in outputs:
                cached = output.cached_tokens if isinstance(output, Started) else cached
                end = output.reason if isinstance(output, Finished) else None
                written += [output] if isinstance(output, Token) else []
                written += [Token(END)] if end is FinishReason.STOP else []
                if streams:
                    parts = form.parts(written[shown:], end, cached, len(written))
                    shown = len(written) if parts else shown
                    await stream.send_all(b"".join(map(event, parts)))
                elif end is not None:
                    await status(200, json.dumps(form.whole(written, end, cached)).encode())(stream, asked)
        if streams:
            await stream.send_all(event(b"[DONE]") + LAST)

    return play


def _is_complete(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


class TokenUpstream(Struct, frozen=True):
    """A running upstream."""

    url: str
    engine: Engine
    model: ScriptedModel
    server: ScriptedUpstream


@asynccontextmanager
async def token_upstreams(models: Sequence[ScriptedModel], kind: str) -> AsyncIterator[list[TokenUpstream]]:
    """Run an upstream for each model."""
    form = FORMS[kind]
    async with trio.open_nursery() as nursery:
        found = []
        for model in models:
            engine = Engine(model, VOCABULARY.end_tokens)
            await nursery.start(engine.run)
            listed = {"id": NAME, "owned_by": form.owner, "max_model_len": model.info.n_ctx}
            server = ScriptedUpstream([generates(engine, form)], {"data": [listed]})
            await nursery.start(server.serve)
            found.append(TokenUpstream(server.url, engine, model, server))
        yield found
        nursery.cancel_scope.cancel()
