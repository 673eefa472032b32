"""The scenarios: the requests of one round, and which answers are counted together.

A scenario is a function that sends requests to one target and returns its groups by name. `run.py` adds up the rounds.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from answer import Answer, parse
from client import Recording
from report import Group
from target import Target
from texts import Texts

Groups: TypeAlias = dict[str, Group]

LEVELS = (1, 2, 4, 8)
CLIENTS = 8
INSTRUCTION_WORDS = 450
"""Words of the instructions: 600 tokens in the style of `texts`."""
QUESTION_WORDS = 12
SHORT_ANSWER = 16

STREAMS = 4
LONG_WORDS = 1500
"""Words of the long prompt: 2,000 tokens."""
CALM_READS = 60
"""Reads of each stream before the long prompt arrives; the calm gaps are measured on them."""
LONG_ANSWER = 1500
"""Maximum tokens of a stream: more than are read, since the streams must outlast the long prompt."""

TURNS = 6
TURN_WORDS = 30
TURN_ANSWER = 32

DROP_SECONDS = 0.2

_PROPERTIES: dict[str, Any] = {
    "summary": {"type": "string", "minLength": 80},
    "mood": {"enum": ["calm", "eager", "sad"]},
    "people": {
        "type": "array",
        "minItems": 3,
        "items": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "pattern": "^[A-Z][a-z]+ [A-Z][a-z]+$"},
                "age": {"type": "integer", "minimum": 1, "maximum": 120},
                "says": {"anyOf": [{"type": "string", "minLength": 20}, {"type": "null"}]},
            },
            "required": ["name", "age", "says"],
            "additionalProperties": False,
        },
    },
    "weight": {"type": "number", "minimum": 0},
    "rest": {"type": "string", "minLength": 400},
}
SCHEMA: dict[str, Any] = {
    "type": "json_schema",
    "name": "story",
    "strict": True,
    "schema": {
        "type": "object",
        "properties": _PROPERTIES,
        "required": list(_PROPERTIES),
        "additionalProperties": False,
    },
}
"""A response format with texts, a choice, objects in a list and bounds, as applications use them; longer than any
answer here."""


@dataclass(slots=True, frozen=True)
class Size:
    """The flags for `single` and `concurrent`; the other scenarios have fixed sizes."""

    concurrency: int
    requests: int
    tokens: int
    words: int


def single(target: Target, texts: Texts, size: Size) -> Groups:
    """Send requests one after another, or `--concurrency` at a time."""
    requests = [target.request(texts.prompt(size.words), size.tokens) for _ in range(size.requests)]
    return {"all": group(target.client().play(requests, size.concurrency))}


def concurrent(target: Target, texts: Texts, size: Size) -> Groups:
    """Send requests with 1, 2, 4 and 8 at a time; each level has as many requests as streams, or `--requests` if
    more."""
    groups = {}
    for level in LEVELS:
        count = max(level, size.requests)
        requests = [target.request(texts.prompt(size.words), size.tokens) for _ in range(count)]
        groups[f"{level} at a time"] = group(target.client().play(requests, level))
    return groups


def shared_prefix(target: Target, texts: Texts, size: Size) -> Groups:
    """Send requests of eight clients at once, with common new instructions of 450 words and separate questions."""
    instructions = texts.words(INSTRUCTION_WORDS)
    requests = [target.request(texts.prompt(QUESTION_WORDS), SHORT_ANSWER, instructions) for _ in range(CLIENTS)]
    return {"all": group(target.client().play(requests, CLIENTS))}


def interference(target: Target, texts: Texts, size: Size) -> Groups:
    """Send a prompt of 1,500 words beside four streams; measure the streams' gaps before it and until its first
    token."""
    client = target.client()
    streams = [client.start(target.request(texts.prompt(QUESTION_WORDS), LONG_ANSWER)) for _ in range(STREAMS)]
    while any(client.running(stream) and len(stream.reads) < CALM_READS for stream in streams):
        client.turn()
    long = client.start(target.request(texts.prompt(LONG_WORDS), SHORT_ANSWER))
    client.finish([long])
    for stream in streams:
        client.drop(stream)
    arrival = parse(long)
    begin = long.start
    end = begin + (arrival.deltas[0] if arrival.deltas else 0.0)
    # The calm phase begins once all four have their first token: before that they delay each other.
    answers = [parse(stream) for stream in streams]
    flowing = max(stream.start + (a.deltas or [0.0])[0] for stream, a in zip(streams, answers, strict=True))
    return {
        "calm": Group(_during(streams, answers, flowing, begin), measures=("itl",)),
        "during": Group(_during(streams, answers, begin, end), measures=("itl",)),
        "long prompt": Group([arrival], measures=("ttft",)),
    }


def multi_turn(target: Target, texts: Texts, size: Size) -> Groups:
    """Run a conversation that sends its whole history each time, as most clients do."""
    client = target.client()
    instructions = texts.words(INSTRUCTION_WORDS)
    history: list[dict[str, Any]] = []
    groups = {}
    for turn in range(1, TURNS + 1):
        history.append({"type": "message", "role": "user", "content": texts.prompt(TURN_WORDS)})
        groups[f"turn {turn}"] = group(client.play([target.request(history, TURN_ANSWER, instructions)], 1), ("ttft",))
        reply = groups[f"turn {turn}"].answers[0].text
        content = [{"type": "output_text", "text": reply, "annotations": []}]
        history.append({"type": "message", "role": "assistant", "status": "completed", "content": content})
    return groups


def abandoned_prompt(target: Target, texts: Texts, size: Size) -> Groups:
    """Send a small request alone, and one behind a prompt of 1,500 words whose client hung up after 200 ms."""
    client = target.client()
    alone = client.play([target.request(texts.prompt(QUESTION_WORDS), SHORT_ANSWER)], 1)
    dropped = client.start(target.request(texts.prompt(LONG_WORDS), SHORT_ANSWER))
    client.wait(DROP_SECONDS)
    client.drop(dropped)
    behind = client.play([target.request(texts.prompt(QUESTION_WORDS), SHORT_ANSWER)], 1)
    return {"alone": group(alone, ("first_byte", "ttft")), "behind": group(behind, ("first_byte", "ttft"))}


def warm_restart(target: Target, texts: Texts, size: Size) -> Groups:
    """Send new instructions of 450 words; restart the server (`--restart`), and send them with another question."""
    instructions = texts.words(INSTRUCTION_WORDS)
    groups = {}
    for name in ("cold", "restarted"):
        request = target.request(texts.prompt(QUESTION_WORDS), SHORT_ANSWER, instructions)
        groups[name] = group(target.client().play([request], 1), ("ttft",))
        if name == "cold":
            target.restart()
    return groups


def constrained(target: Target, texts: Texts, size: Size) -> Groups:
    """Send questions alternately without and with a JSON schema.

    Repetitive answers could be drafted, so the schema demands texts of many kinds. A longer prompt makes steps longer,
    and a server may render the schema for the model: then the unconstrained questions get instructions of that length.
    """
    kinds: dict[str, dict[str, Any]] = {"free": {}, "constrained": {"format_": SCHEMA}}
    free_tokens, constrained_tokens = (_input_tokens(target, texts, **options) for options in kinds.values())
    if constrained_tokens > free_tokens:
        kinds["free"]["instructions"] = texts.words(max(1, (constrained_tokens - free_tokens) * 3 // 4))
    answers: dict[str, list[Recording]] = {name: [] for name in kinds}
    for _ in range(size.requests):
        words = texts.prompt(size.words)
        for name, options in kinds.items():
            answers[name] += target.client().play([target.request(words, size.tokens, **options)], 1)
    return {name: group(recordings) for name, recordings in answers.items()}


def _input_tokens(target: Target, texts: Texts, **options: Any) -> int:
    """Return the input tokens of a request with these options; 0 if the server does not report them."""
    return parse(target.client().play([target.request(texts.prompt(1), 1, **options)], 1)[0]).input_tokens


SCENARIOS: dict[str, Callable[[Target, Texts, Size], Groups]] = {
    "single": single,
    "concurrent": concurrent,
    "shared-prefix": shared_prefix,
    "interference": interference,
    "multi-turn": multi_turn,
    "abandoned-prompt": abandoned_prompt,
    "warm-restart": warm_restart,
    "constrained": constrained,
}


def group(recordings: Sequence[Recording], measures: tuple[str, ...] | None = None) -> Group:
    """Return the group of these recordings."""
    counted = Group([parse(recording) for recording in recordings], wall_seconds(recordings))
    if measures is not None:
        counted.measures = measures
    return counted


def wall_seconds(recordings: Iterable[Recording]) -> float:
    """Return the time from the first start to the last read."""
    last = max((recording.reads[-1][0] for recording in recordings if recording.reads), default=0.0)
    return max(0.0, last - min(recording.start for recording in recordings))


def _during(streams: list[Recording], answers: list[Answer], begin: float, end: float) -> list[Answer]:
    """Return the answers' deltas between two times."""
    pairs = zip(streams, answers, strict=True)
    return [answer.between(begin - stream.start, end - stream.start) for stream, answer in pairs]
