"""What is done to a server in one round, and which answers are counted together.

A scenario is a function: it plays to one target and returns its parts by name. Rounds are added up in `run.py`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from answer import Answer, understand
from client import Recording
from report import Part
from target import Target
from texts import Texts

Parts: TypeAlias = dict[str, Part]

LEVELS = (1, 2, 4, 8)
CLIENTS = 8
INSTRUCTION_WORDS = 450
"""600 tokens, as `texts` writes them."""
QUESTION_WORDS = 12
SHORT_ANSWER = 16

STREAMS = 4
LONG_WORDS = 1500
"""2,000 tokens."""
CALM_READS = 60
"""Of each stream, before the long prompt comes: what is calm is measured on them."""
LONG_ANSWER = 1500
"""More than is read of it: the streams must outlast the long prompt."""

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
"""Texts, a choice, objects in a list, bounds: what applications ask for; longer than any answer here."""


@dataclass(slots=True, frozen=True)
class Size:
    """What the flags say of `single` and `concurrent`; the other scenarios are what their names say."""

    concurrency: int
    requests: int
    tokens: int
    words: int


def single(target: Target, texts: Texts, size: Size) -> Parts:
    """Requests one after another, or `--concurrency` at a time."""
    requests = [target.request(texts.prompt(size.words), size.tokens) for _ in range(size.requests)]
    return {"all": part(target.client().play(requests, size.concurrency))}


def concurrent(target: Target, texts: Texts, size: Size) -> Parts:
    """The same with 1, 2, 4 and 8 at a time; as many requests a level as there are streams, or `--requests`."""
    parts = {}
    for level in LEVELS:
        count = max(level, size.requests)
        requests = [target.request(texts.prompt(size.words), size.tokens) for _ in range(count)]
        parts[f"{level} at a time"] = part(target.client().play(requests, level))
    return parts


def shared_prefix(target: Target, texts: Texts, size: Size) -> Parts:
    """Eight clients at once with the same new instructions of 450 words, each with a question of its own."""
    instructions = texts.words(INSTRUCTION_WORDS)
    requests = [target.request(texts.prompt(QUESTION_WORDS), SHORT_ANSWER, instructions) for _ in range(CLIENTS)]
    return {"all": part(target.client().play(requests, CLIENTS))}


def interference(target: Target, texts: Texts, size: Size) -> Parts:
    """Four streams flow; a prompt of 1,500 words arrives. The gaps of the four before it, and until its first token."""
    client = target.client()
    streams = [client.start(target.request(texts.prompt(QUESTION_WORDS), LONG_ANSWER)) for _ in range(STREAMS)]
    while any(client.running(stream) and len(stream.reads) < CALM_READS for stream in streams):
        client.turn()
    long = client.start(target.request(texts.prompt(LONG_WORDS), SHORT_ANSWER))
    client.finish([long])
    for stream in streams:
        client.drop(stream)
    arrival = understand(long)
    begin = long.start
    end = begin + (arrival.deltas[0] if arrival.deltas else 0.0)
    # Calm is when all four have their first token: before that they disturb each other.
    answers = [understand(stream) for stream in streams]
    flowing = max(stream.start + (a.deltas or [0.0])[0] for stream, a in zip(streams, answers, strict=True))
    return {
        "calm": Part(_during(streams, answers, flowing, begin), measures=("itl",)),
        "during": Part(_during(streams, answers, begin, end), measures=("itl",)),
        "long prompt": Part([arrival], measures=("ttft",)),
    }


def multi_turn(target: Target, texts: Texts, size: Size) -> Parts:
    """A conversation that sends its whole history each time, as most clients do."""
    client = target.client()
    instructions = texts.words(INSTRUCTION_WORDS)
    history: list[dict[str, Any]] = []
    parts = {}
    for turn in range(1, TURNS + 1):
        history.append({"type": "message", "role": "user", "content": texts.prompt(TURN_WORDS)})
        parts[f"turn {turn}"] = part(client.play([target.request(history, TURN_ANSWER, instructions)], 1), ("ttft",))
        said = parts[f"turn {turn}"].answers[0].text
        content = [{"type": "output_text", "text": said, "annotations": []}]
        history.append({"type": "message", "role": "assistant", "status": "completed", "content": content})
    return parts


def abandoned_prompt(target: Target, texts: Texts, size: Size) -> Parts:
    """A small request alone, and one behind a prompt of 1,500 words whose client hung up after 200 ms."""
    client = target.client()
    alone = client.play([target.request(texts.prompt(QUESTION_WORDS), SHORT_ANSWER)], 1)
    dropped = client.start(target.request(texts.prompt(LONG_WORDS), SHORT_ANSWER))
    client.wait(DROP_SECONDS)
    client.drop(dropped)
    behind = client.play([target.request(texts.prompt(QUESTION_WORDS), SHORT_ANSWER)], 1)
    return {"alone": part(alone, ("first_byte", "ttft")), "behind": part(behind, ("first_byte", "ttft"))}


def warm_restart(target: Target, texts: Texts, size: Size) -> Parts:
    """New instructions of 450 words, once; then, after a restart (`--restart`), the same with another question."""
    instructions = texts.words(INSTRUCTION_WORDS)
    parts = {}
    for name in ("cold", "restarted"):
        request = target.request(texts.prompt(QUESTION_WORDS), SHORT_ANSWER, instructions)
        parts[name] = part(target.client().play([request], 1), ("ttft",))
        if name == "cold":
            target.restart()
    return parts


def constrained(target: Target, texts: Texts, size: Size) -> Parts:
    """The same questions free and under a JSON schema, in turn. Answers that say the same again and again may be
    guessed, so the schema wants texts of many kinds. A longer prompt makes steps longer, and a server may tell the
    model its schema: then the free questions have instructions of that length."""
    kinds: dict[str, dict[str, Any]] = {"free": {}, "constrained": {"format_": SCHEMA}}
    free, held = (_input_tokens(target, texts, **wishes) for wishes in kinds.values())
    if held > free:
        kinds["free"]["instructions"] = texts.words(max(1, (held - free) * 3 // 4))
    answers: dict[str, list[Recording]] = {name: [] for name in kinds}
    for _ in range(size.requests):
        words = texts.prompt(size.words)
        for name, wishes in kinds.items():
            answers[name] += target.client().play([target.request(words, size.tokens, **wishes)], 1)
    return {name: part(recordings) for name, recordings in answers.items()}


def _input_tokens(target: Target, texts: Texts, **wishes: Any) -> int:
    """Of a request with these wishes; 0 where the server doesn't tell."""
    return understand(target.client().play([target.request(texts.prompt(1), 1, **wishes)], 1)[0]).input_tokens


SCENARIOS: dict[str, Callable[[Target, Texts, Size], Parts]] = {
    "single": single,
    "concurrent": concurrent,
    "shared-prefix": shared_prefix,
    "interference": interference,
    "multi-turn": multi_turn,
    "abandoned-prompt": abandoned_prompt,
    "warm-restart": warm_restart,
    "constrained": constrained,
}


def part(recordings: Sequence[Recording], measures: tuple[str, ...] | None = None) -> Part:
    """All of them, understood."""
    counted = Part([understand(recording) for recording in recordings], wall_seconds(recordings))
    if measures is not None:
        counted.measures = measures
    return counted


def wall_seconds(recordings: Iterable[Recording]) -> float:
    """From the first start to the last read of all."""
    last = max((recording.reads[-1][0] for recording in recordings if recording.reads), default=0.0)
    return max(0.0, last - min(recording.start for recording in recordings))


def _during(streams: list[Recording], answers: list[Answer], begin: float, end: float) -> list[Answer]:
    pairs = zip(streams, answers, strict=True)
    return [answer.between(begin - stream.start, end - stream.start) for stream, answer in pairs]
