"""The start with upstreams that get tokens: whose tokens are not ours is refused, and lacking fields are found."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from engine.backends import scripted
from engine.backends.scripted import ScriptedModel
from server.config import Config, ConfigError
from server.upstream.tokens.gate import FULL_BIAS, bias
from server.upstream.upstreams import NoUpstream, connect, tokenizer
from tests.server.upstream.scripted_upstream import Asked, Play, ScriptedUpstream, status
from tests.server.upstream.token_upstreams import token_upstreams, tokenizer_file
from tests.support.helpers import NAME

Change = Callable[[dict[str, Any]], dict[str, Any] | None]
"""Body of a request -> body for the upstream behind; None to refuse it."""


def config(url: str, folder: Path) -> Config:
    return msgspec.structs.replace(
        Config(upstreams=(url,)), upstream_api="completions", tokenizer=tokenizer_file(folder)
    )


def without(*names: str) -> Change:
    """Ignore some fields."""
    return lambda body: {key: value for key, value in body.items() if key not in names}


def refusing(*names: str) -> Change:
    return lambda body: None if any(body.get(name) for name in names) else body


def changed(play: Play, change: Change) -> Play:
    async def changing(stream: trio.SocketStream, asked: Asked) -> None:
        body = change(asked.body)
        if body is None:
            await status(400)(stream, asked)
        else:
            await play(stream, msgspec.structs.replace(asked, body=body))

    return changing


@pytest.mark.parametrize(
    ("change", "lacking"),
    [
        (lambda body: body, {"repeat_last_n"}),
        (without("logit_bias"), {"logit_bias", "repeat_last_n"}),
        (without("allowed_token_ids"), {"allowed_token_ids", "repeat_last_n"}),
        (refusing("allowed_token_ids"), {"allowed_token_ids", "repeat_last_n"}),
        (without("structured_outputs"), {"grammar", "repeat_last_n"}),
        (refusing("seed", "min_p"), {"min_p", "repeat_last_n", "seed"}),
        (refusing("logprobs", "structured_outputs"), {"grammar", "logprobs", "repeat_last_n"}),
    ],
)
async def test_probe_names_the_fields_that_are_refused_or_ignored(
    change: Change, lacking: set[str], tmp_path: Path
) -> None:
    async with token_upstreams([ScriptedModel(lambda message: b"Paris and more")], "vLLM") as (upstream,):
        server = upstream.server
        server._answers = [changed(server._answers[0], change)]
        found = await trio.to_thread.run_sync(connect, config(upstream.url, tmp_path))
    assert getattr(found.registry.source, "lacking", None) == lacking


@pytest.mark.parametrize("refused", [False, True])
async def test_sglang_with_deterministic_inference_gets_no_min_p(refused: bool, tmp_path: Path) -> None:
    """Also if each field is asked for alone."""
    asked: list[Any] = []

    def noted(body: dict[str, Any]) -> dict[str, Any] | None:
        asked.append(body["sampling_params"].get("min_p"))
        return None if refused and body["sampling_params"].get("sampling_seed") is not None else body

    async with token_upstreams([ScriptedModel(lambda message: b"Paris and more")], "SGLang") as (upstream,):
        server = upstream.server
        server._answers, server._info = [changed(server._answers[0], noted)], b'{"enable_deterministic_inference":true}'
        found = await trio.to_thread.run_sync(connect, config(upstream.url, tmp_path))
    assert set(asked) == {None}
    assert getattr(found.registry.source, "lacking", frozenset()) >= {"min_p"}


BACKENDS = {
    "xgrammar": ("ebnf", {"repeat_last_n"}),
    "llguidance": ("lark", {"repeat_last_n"}),
    "outlines": ("", {"grammar", "repeat_last_n"}),
    "none": ("", {"grammar", "repeat_last_n"}),
}
"""Syntax of the grammars that are sent, and the lacking fields, by SGLang's backend of grammars."""


@pytest.mark.parametrize("backend", BACKENDS)
async def test_sglang_gets_grammars_in_the_syntax_of_its_backend(backend: str, tmp_path: Path) -> None:
    kind, sent = "SGLang with new tokens" if backend == "llguidance" else "SGLang", set[str]()

    def noted(body: dict[str, Any]) -> dict[str, Any]:
        grammar = body["sampling_params"].get("ebnf", "")
        sent.update({"ebnf" if " ::= " in grammar else "lark"} if grammar else ())
        return body

    async with token_upstreams([ScriptedModel(lambda message: b"Paris and more")], kind) as (upstream,):
        server = upstream.server
        server._answers = [changed(server._answers[0], noted)]
        server._info = msgspec.json.encode({"grammar_backend": backend})
        found = await trio.to_thread.run_sync(connect, config(upstream.url, tmp_path))
    syntax, lacking = BACKENDS[backend]
    assert (sent, getattr(found.registry.source, "lacking", None)) == ({syntax} - {""}, lacking)


WRONG: Mapping[str, tuple[dict[str, Any], str]] = {
    "other text": (
        {"text": "Rome", "token_ids": [*b"Paris"], "finish_reason": "length"},
        "are not those of --tokenizer",
    ),
    "other ids": ({"text": "Rome", "token_ids": [70_000], "finish_reason": "length"}, "does not have"),
    "no ids": ({"text": "Rome", "finish_reason": "length"}, "return_token_ids"),
    "no tokens": ({"text": "", "token_ids": [], "finish_reason": "length"}, "returns no tokens"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_upstream_with_other_tokens_is_refused(name: str, tmp_path: Path) -> None:
    choice, message = WRONG[name]
    async with trio.open_nursery() as nursery:
        answer = status(200, msgspec.json.encode({"choices": [choice]}))
        upstream = ScriptedUpstream([answer], {"data": [{"id": NAME, "owned_by": "vllm"}]})
        await nursery.start(upstream.serve)
        with pytest.raises(NoUpstream, match=message):
            await trio.to_thread.run_sync(connect, config(upstream.url, tmp_path))
        nursery.cancel_scope.cancel()


def test_missing_tokenizer_is_named_with_a_remedy(tmp_path: Path) -> None:
    wanted = msgspec.structs.replace(Config(), tokenizer=tmp_path / "none.gguf")
    with pytest.raises(ConfigError, match=r"--tokenizer .*none.gguf cannot be read .*: name the GGUF file"):
        tokenizer(wanted)


@pytest.mark.slow
@given(st.sets(st.integers(0, 260), min_size=1), st.dictionaries(st.integers(0, 260), st.floats(-20, 20), max_size=5))
def test_bias_leaves_the_allowed_tokens_in_proportion(allowed: set[int], wanted: dict[int, float]) -> None:
    n_vocab = len(scripted.vocabulary())
    logits = np.linspace(-30, 30, n_vocab)
    for id_, value in bias(allowed, n_vocab, wanted).items():
        logits[id_] += value
    expected = np.linspace(-30, 30, n_vocab)
    for id_, value in wanted.items():
        expected[id_] += value
    ids = sorted(allowed)
    best = logits[ids].max()
    assert np.allclose(logits[ids] - best, expected[ids] - expected[ids].max())
    others = [id_ for id_ in range(n_vocab) if id_ not in allowed]
    assert all(best - logits[others] > FULL_BIAS - 60 - 40 - 1)
