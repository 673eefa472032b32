"""What a model utters, taken apart. Data only."""

from typing import TypeAlias

from msgspec import Struct


class Reasoned(Struct, frozen=True):
    """Text of its reasoning."""

    text: str


class Said(Struct, frozen=True):
    """Text of its answer."""

    text: str


class CallBegun(Struct, frozen=True):
    """It calls a function."""

    name: str


class Arguments(Struct, frozen=True):
    """More of the begun call's arguments: all together they are JSON, as far as the model wrote JSON."""

    text: str


class CallEnded(Struct, frozen=True):
    """The call is whole, or all that comes of it."""


Utterance: TypeAlias = Reasoned | Said | CallBegun | Arguments | CallEnded


def merged(utterances: list[Utterance]) -> list[Utterance]:
    """Texts of a kind that follow each other as one."""
    found: list[Utterance] = []
    for each in utterances:
        last = found[-1] if found else None
        match last, each:
            case Reasoned(before), Reasoned(text):
                found[-1] = Reasoned(before + text)
            case Said(before), Said(text):
                found[-1] = Said(before + text)
            case Arguments(before), Arguments(text):
                found[-1] = Arguments(before + text)
            case _:
                found.append(each)
    return found
