"""Upstreams that continue tokens: servers over an engine, which answer as llama.cpp's server, vLLM and SGLang do."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from msgspec import Struct
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from engine.backends import scripted
from engine.backends.scripted import CONTROL, END, ScriptedModel
from engine.job import Finished, FinishReason, Started, Token
from engine.runtime.engine import Engine
from engine.tokenizer import BYTE_TO_UNICODE
from tests.engine.tokenizer import tokenizer_files
from tests.server.upstream.scripted_upstream import HEAD, LAST, Asked, Play, ScriptedUpstream, event, plays, status
from tests.server.upstream.tokens.forms import FORMS, VOCABULARY, Form, ServerFault
from tests.support.helpers import NAME


def tokenizer_file(folder: Path, template: str = scripted.TEMPLATE) -> Path:
    """Write the vocabulary of the scripted model as `tokenizer.json`; return its path."""
    texts = [*(BYTE_TO_UNICODE[byte] for byte in range(256)), *CONTROL]
    tokenizer = Tokenizer(BPE({text: id_ for id_, text in enumerate(texts)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer_files.write(folder, tokenizer, CONTROL, eos_token=CONTROL[0], chat_template=template)


def generates(engine: Engine, kind: type[Form]) -> Play:
    """Answer each request by the engine."""

    async def play(stream: trio.SocketStream, asked: Asked) -> None:
        form, streams = kind(), asked.body["stream"]
        try:
            job = form.job(asked.body)
        except ServerFault as fault:
            whole = status(fault.status, json.dumps(fault.body).encode())
            await (plays(HEAD, event(fault.body), event(b"[DONE]") + LAST) if streams else whole)(stream, asked)
            return
        if min(job.prompt, default=0) < 0 or max(job.prompt, default=0) >= len(VOCABULARY):
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
            server = ScriptedUpstream([generates(engine, form)], {"data": [listed]}, info=form.settings)
            await nursery.start(server.serve)
            found.append(TokenUpstream(server.url, engine, model, server))
        yield found
        nursery.cancel_scope.cancel()
