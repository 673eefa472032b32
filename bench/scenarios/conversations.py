"""Scenarios of conversations that send their whole history each time, as most clients do, and of restarts."""

from typing import Any

from client import StreamClient
from measures import Group
from record import Record
from target import Target
from texts import Texts

from scenarios.groups import INSTRUCTION_WORDS, QUESTION_WORDS, SHORT_ANSWER, Groups, Size, group

TURNS = 6
TURN_WORDS = 30
TURN_ANSWER = 32
"""Maximum tokens of an answer."""

TALKERS = 6
"""Conversations that take turns: more than the slots of a small server."""
TALKER_TURNS = 4
TALKER_WORDS = 200
"""Words of each conversation's own instructions: 270 tokens."""


class ClientConversation:
    """A conversation with instructions of its own."""

    def __init__(self, instructions: str) -> None:
        self._instructions = instructions
        self._history: list[dict[str, Any]] = []

    def ask(self, target: Target, client: StreamClient, question: str) -> Group:
        """Send the history with another question, and add both sides to the history."""
        self._history.append({"type": "message", "role": "user", "content": question})
        asked = group(client.play([target.request(self._history, TURN_ANSWER, self._instructions)], 1), ("ttft",))
        self._history.append(_reply(asked.records[0]))
        return asked


def _reply(answer: Record) -> dict[str, Any]:
    content = [{"type": "output_text", "text": answer.text, "annotations": []}]
    return {"type": "message", "role": "assistant", "status": "completed", "content": content}


def multi_turn(target: Target, texts: Texts, size: Size) -> Groups:
    """Run a conversation of six turns, each of which sends the whole history."""
    client = target.client()
    conversation = ClientConversation(texts.words(INSTRUCTION_WORDS))
    turns = range(1, TURNS + 1)
    return {f"turn {turn}": conversation.ask(target, client, texts.prompt(TURN_WORDS)) for turn in turns}


def rotation(target: Target, texts: Texts, size: Size) -> Groups:
    """Run six conversations that take turns. With `--restart`, the server restarts before the last turn."""
    conversations = [ClientConversation(texts.words(TALKER_WORDS)) for _ in range(TALKERS)]
    groups: Groups = {}
    for turn in range(1, TALKER_TURNS + 1):
        name = "turn 1" if turn == 1 else "later turns"
        if size.restarts and turn == TALKER_TURNS:
            target.restart()
            name = "restarted"
        groups.setdefault(name, Group())
        for conversation in conversations:
            groups[name] += conversation.ask(target, target.client(), texts.prompt(QUESTION_WORDS))
    return groups


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
