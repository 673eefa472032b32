"""`POST /v1/completions`: a prompt without a template, over a socket and by the official client."""

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from engine.backends.scripted import ASSISTANT, USER, ScriptedModel
from engine.loader import Options, load
from tests.server.api.test_reasoning import THINKS
from tests.server.api.tools.test_tools import evaluated
from tests.support import model_files
from tests.support.helpers import NAME, Running, encode, exchange, official_client, served

PROMPT = "<|user|>Is it?<|assistant|>"
"""A prompt in which the names of control tokens mean these tokens."""


async def post(running: Running, **body: Any) -> Any:
    return await exchange(running, "POST", "/v1/completions", encode(**body))


def says(text: bytes) -> ScriptedModel:
    return ScriptedModel(lambda message: text)


async def test_text_completion_continues_prompt_without_template() -> None:
    async with served(says(b"Yes, it is. And so on, for long.")) as running:
        answer = await post(running, prompt=PROMPT)
        assert evaluated(running) == b"Is it?"
    body = answer.json
    assert answer.status == 200, answer.body
    assert body == {
        "id": body["id"],
        "object": "text_completion",
        "created": body["created"],
        "model": NAME,
        "choices": [{"text": "Yes, it is. And ", "finish_reason": "length", "index": 0, "logprobs": None}],
        "usage": {
            "prompt_tokens": 8,
            "completion_tokens": 16,
            "total_tokens": 24,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }
    assert body["id"].startswith("cmpl-")


async def test_text_completion_of_token_ids_equals_that_of_text() -> None:
    async with served(says(b"Yes.")) as running:
        answers = [
            (await post(running, prompt=prompt, max_tokens=-1)).json
            for prompt in (PROMPT, [USER, *b"Is it?", ASSISTANT])
        ]
    assert [answer["choices"][0]["text"] for answer in answers] == ["Yes.", "Yes."]
    assert [answer["usage"]["prompt_tokens"] for answer in answers] == [8, 8]
    assert answers[0]["choices"][0]["finish_reason"] == "stop"


async def test_text_completion_with_call_markup_is_plain_text() -> None:
    """The server parses neither reasoning nor calls in it, for any model family."""
    text = b'<think>So.</think><tool_call>{"name": "f"}</tool_call>'
    async with served(says(text), template=THINKS) as running:
        answer = await post(running, prompt=PROMPT, max_tokens=100)
    assert answer.json["choices"][0]["text"] == text.decode()


async def test_text_completion_ends_at_stop_string() -> None:
    async with served(says(b"one two three")) as running:
        answer = await post(running, prompt=PROMPT, stop=["two"])
    assert answer.json["choices"][0] == {"text": "one ", "finish_reason": "stop", "index": 0, "logprobs": None}


async def test_text_completion_streamed_has_equal_text() -> None:
    async with served(says(b"Yes.")) as running:
        answer = await post(running, prompt=PROMPT, stream=True, stream_options={"include_usage": True})
    *frames, done, rest = answer.body.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    chunks = [json.loads(frame.removeprefix(b"data: ")) for frame in frames]
    *texts, last, usage = chunks
    assert "".join(chunk["choices"][0]["text"] for chunk in texts) == "Yes."
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert last["choices"] == [{"text": "", "finish_reason": "stop", "index": 0, "logprobs": None}]
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 5)
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


async def test_text_completion_has_requested_logprobs() -> None:
    async with served(says(b"Yes.")) as running:
        answer = await post(running, prompt=PROMPT, logprobs=2)
    logprobs = answer.json["choices"][0]["logprobs"]
    assert (logprobs["tokens"], logprobs["text_offset"]) == (["Y", "e", "s", "."], [0, 1, 2, 3])
    assert len(logprobs["token_logprobs"]) == 4
    assert all(len(each) <= 2 for each in logprobs["top_logprobs"])


WRONG = [
    ({}, "prompt", "`prompt` is missing: send a text or a list of token ids."),
    ({"prompt": ""}, "prompt", "`prompt` is missing: send a text or a list of token ids."),
    ({"prompt": []}, "prompt", "`prompt` is missing: send a text or a list of token ids."),
    ({"prompt": ["a", "b"]}, "prompt[0]", "`prompt[0]` must be a whole number, not a string."),
    ({"prompt": [-1]}, "prompt", "`prompt` has the token -1; this model has those from 0 to 260."),
    ({"prompt": [261]}, "prompt", "`prompt` has the token 261; this model has those from 0 to 260."),
    ({"prompt": "a", "n": 2}, "n", "`n` of 2 is not supported: leave it out."),
    ({"prompt": "a", "echo": True}, "echo", "`echo` of true is not supported: leave it out."),
    ({"prompt": "a", "best_of": 3}, "best_of", None),
    (
        {"prompt": "a", "suffix": "z"},
        "suffix",
        "`suffix` is not supported; send the text before the gap only.",
    ),
    ({"prompt": "a", "max_tokens": 0}, "max_tokens", None),
    ({"prompt": "a" * 100_000}, "prompt", None),
]


@pytest.mark.parametrize(("body", "param", "message"), WRONG)
async def test_invalid_text_completion_is_rejected_by_name(body: Any, param: str, message: str | None) -> None:
    async with served() as running:
        answer = await post(running, **body)
    assert (answer.status, answer.json["error"]["param"]) == (400, param)
    assert message is None or answer.json["error"]["message"] == message


async def test_text_completion_fits_official_client() -> None:
    def use(url: str) -> tuple[str, str]:
        with official_client(url) as client:
            whole = client.completions.create(model=NAME, prompt=PROMPT)
            parts = client.completions.create(model=NAME, prompt=PROMPT, stream=True)
            return whole.choices[0].text, "".join(part.choices[0].text for part in parts)

    async with served(says(b"Yes.")) as running:
        assert await trio.to_thread.run_sync(use, running.url) == ("Yes.", "Yes.")


@pytest.mark.slow
def test_model_without_chat_template_gets_plain_text_and_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = model_files.spm(tmp_path / "model.gguf", template=None)
    loaded = load(path, Options(n_slots=1), tmp_path / "cache")
    loaded.model.close()
    assert "has no chat template: the model gets plain text" in caplog.text


@pytest.mark.slow
def test_chat_template_setting_replaces_template_of_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = model_files.spm(tmp_path / "model.gguf", template="{{ raise_exception('the file has it') }}")
    mine = tmp_path / "mine.jinja"
    mine.write_text("{% for m in messages %}{{ m.content }}!{% endfor %}")
    loaded = load(path, Options(n_slots=1, chat_template=str(mine)), tmp_path / "cache")
    loaded.model.close()
    assert "has no chat template" not in caplog.text
    assert loaded.template.dialect.name == "generic"
