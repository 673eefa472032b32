"""Scenarios of requests that arrive one after another, or several at a time."""

from load import closed_loop, until_interrupted
from target import Target
from texts import Texts

from scenarios.groups import INSTRUCTION_WORDS, QUESTION_WORDS, SHORT_ANSWER, Groups, Size, group

LEVELS = (1, 2, 4, 8)
"""Requests at a time in `concurrent`."""
CLIENTS = 8


def single(target: Target, texts: Texts, size: Size) -> Groups:
    """Send requests one after another, or `--concurrency` at a time."""
    requests = [size.lengths.draw(target, texts) for _ in range(size.requests)]
    return {"all": group(closed_loop(target.client(), requests, size.concurrency))}


def concurrent(target: Target, texts: Texts, size: Size) -> Groups:
    """Send requests with 1, 2, 4 and 8 at a time; each level has as many requests as streams, or `--requests` if
    more."""
    groups: Groups = {}
    with until_interrupted(target.client()):
        for level in LEVELS:
            count = max(level, size.requests)
            requests = [size.lengths.draw(target, texts) for _ in range(count)]
            groups[f"{level} at a time"] = group(closed_loop(target.client(), requests, level))
    return groups


def shared_prefix(target: Target, texts: Texts, size: Size) -> Groups:
    """Send requests of eight clients at once, with common new instructions of 450 words and separate questions."""
    instructions = texts.words(INSTRUCTION_WORDS)
    requests = [target.request(texts.prompt(QUESTION_WORDS), SHORT_ANSWER, instructions) for _ in range(CLIENTS)]
    return {"all": group(target.client().play(requests, CLIENTS))}
