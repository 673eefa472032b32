"""Probe of an upstream before the start: one small request a feature shows which fields it refuses or ignores.

A field counts as lacking only if that is certain: the upstream refuses it, or its answer shows that the field had no
effect. An answer that shows nothing, such as unfinished reasoning, counts for the upstream.
"""

from collections.abc import Callable, Mapping, Set
from typing import Any

import msgspec
import trio
from msgspec import Struct

from server.upstream.transport import MissingFields, UpstreamClient, UpstreamFault, faults, shallow

PROBE_SECONDS = 120.0
"""Seconds for all requests to one upstream. Fields that are left then count as present."""
MAX_BYTES = 1 << 20
MISMATCHES = (
    "The model produced output that does not match",
    "The upstream's output does not match",
    "The upstream's model calls",
)
"""Messages of llama.cpp and of a front like this one about a fault in the model's output, which shows no lack."""
VOWELS = list("aeio")
"""Stop strings of which almost any answer has one; vLLM takes four at most."""
TOOL = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "Return the time of day in a city, which must be named in English.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
SCHEMA = {"type": "object", "properties": {"ok": {"const": True}}, "required": ["ok"], "additionalProperties": False}
HARMLESS: Mapping[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.9,
    "seed": 7,
    "presence_penalty": 0.1,
    "frequency_penalty": 0.1,
    "logit_bias": {"5": -1},
    "top_k": 40,
    "min_p": 0.05,
    "repeat_last_n": 16,
    "repeat_penalty": 1.05,
    "repetition_penalty": 1.05,
    "reasoning_effort": "low",
    "chat_template_kwargs": {"enable_thinking": False},
}
"""Fields that an answer cannot show, with a value that every server with the field accepts."""


class _ProbedMessage(Struct, frozen=True):
    content: str | None = None
    tool_calls: list[Any] | None = None


class _ProbedChoice(Struct, frozen=True):
    finish_reason: str | None = None
    message: _ProbedMessage = _ProbedMessage()
    logprobs: Any = None


class _ProbedUsage(Struct, frozen=True):
    prompt_tokens: int = 0


class _ProbedAnswer(Struct, frozen=True):
    choices: list[_ProbedChoice] = []
    usage: _ProbedUsage = _ProbedUsage()

    @property
    def text(self) -> str:
        return (self.choices[0].message.content or "") if self.choices else ""

    @property
    def calls(self) -> bool:
        return bool(self.choices and self.choices[0].message.tool_calls)

    @property
    def lacks_call(self) -> bool:
        """True for a complete text. vLLM returns a call that is cut as a text."""
        return bool(self.text.strip()) and not self.calls and self.choices[0].finish_reason != "length"

    @property
    def logprobs(self) -> bool:
        return bool(self.choices and self.choices[0].logprobs)


class Probe:
    def __init__(self, client: UpstreamClient, model: str, unsafe: Set[str] = frozenset()) -> None:
        """`unsafe`: fields that are not tried, and count as refused."""
        self._client = client
        self._model = model
        self._refused = set(unsafe)
        self._ignored: set[str] = set()

    async def run(self) -> MissingFields:
        """Return what the upstream lacks. Raises UpstreamFault if it answers no chat completion."""
        with trio.move_on_after(PROBE_SECONDS):
            plain = await self._answer(1)
            await self._probe_harmless()
            await self._probe_visible(plain)
        return MissingFields(frozenset(self._refused), frozenset(self._ignored))

    async def _probe_harmless(self) -> None:
        """Send all fields at once, and one after the other only if that is refused."""
        harmless = {name: value for name, value in HARMLESS.items() if name not in self._refused}
        if await self._accepts(harmless):
            return
        for name, value in harmless.items():
            if not await self._accepts({name: value}):
                self._refused.add(name)

    async def _probe_visible(self, plain: _ProbedAnswer) -> None:
        if not await self._accepts({"stream": True, "stream_options": {"include_usage": True}}):
            self._refused.add("stream_options")
        answer = await self._ask(1, logprobs=True, top_logprobs=1)
        self._note(("logprobs", "top_logprobs"), answer, lambda found: not found.logprobs)
        answer = await self._ask(8, stop=VOWELS)
        self._note(("stop",), answer, lambda found: any(vowel in found.text for vowel in VOWELS))
        schema = {"name": "ok", "schema": SCHEMA, "strict": True}
        answer = await self._ask(24, response_format={"type": "json_schema", "json_schema": schema})
        self._note(("response_format",), answer, lambda found: found.text.strip()[:1] not in ("", "{"))
        answer = await self._ask(1, tools=[TOOL])
        same = plain.usage.prompt_tokens
        self._note(("tools",), answer, lambda found: 0 < found.usage.prompt_tokens <= same)
        if "tools" not in self._refused:
            answer = await self._ask(48, tools=[TOOL], tool_choice="required")
            self._note(("tool_choice",), answer, lambda found: found.lacks_call)

    def _note(
        self, names: tuple[str, ...], answer: _ProbedAnswer | None, is_ignored: Callable[[_ProbedAnswer], bool]
    ) -> None:
        """Note fields that were refused (no answer), or that the answer shows to be ignored."""
        if answer is None:
            self._refused.update(names)
        elif is_ignored(answer):
            self._ignored.update(names)

    async def _accepts(self, fields: Mapping[str, Any]) -> bool:
        return await self._ask(1, **fields) is not None

    async def _ask(self, max_tokens: int, **fields: Any) -> _ProbedAnswer | None:
        """Return the answer to a request with these fields; None if it is refused."""
        try:
            return await self._answer(max_tokens, **fields)
        except UpstreamFault as fault:
            if not fault.refuses:
                raise
            return None

    async def _answer(self, max_tokens: int, **fields: Any) -> _ProbedAnswer:
        messages = [{"role": "user", "content": "What time is it in Paris?"}]
        body = {"model": self._model, "messages": messages, "max_tokens": max_tokens, "temperature": 0, **fields}
        target = self._client.address.path + "/chat/completions"
        try:
            async with self._client.request("POST", target, msgspec.json.encode(body)) as answer:
                data = await answer.read(MAX_BYTES)
            return _decode(shallow(data))
        except UpstreamFault as fault:
            if not any(words in str(fault) for words in MISMATCHES):
                raise
            return _ProbedAnswer()
        except faults.DECODING_ERRORS:
            return _ProbedAnswer()  # a stream, or nothing that shows a lack


_decode = msgspec.json.Decoder(_ProbedAnswer).decode
