"""What an answer is held to, as data, and how many bytes that takes."""

from collections.abc import Iterable
from sys import getsizeof

from msgspec import Struct

from engine.structured_output import BareCallTrigger, CompiledGrammar, Trigger
from server.protocol.formats import Format, JsonFormat, PlainFormat
from server.tools import GrammarInput, Toolbox, ToolSpec


class OutputConstraints(Struct, frozen=True):
    """What an answer is held to, compiled."""

    answer: CompiledGrammar | None = None
    triggers: tuple[Trigger, ...] = ()
    beginnings: tuple[BareCallTrigger, ...] = ()
    after: CompiledGrammar | None = None
    """Of a thought that had to end."""
    loose: frozenset[str] = frozenset()
    """The functions, by the model's names, that are not held to all of their schemas."""
    never: tuple[str, ...] = ()
    """Markers of calls, in an answer that may have none."""
    unenforced: tuple[str, ...] = ()
    """Places in the request of the keywords that were left out."""
    names: tuple[str, ...] = ()
    """Functions on offer, as the model knows them."""

    @property
    def free(self) -> bool:
        return not (self.answer or self.triggers or self.beginnings or self.never)

    @property
    def size(self) -> int:
        """Bytes, about."""
        grammars = [self.answer, self.after]
        grammars += [each.grammar for each in self.triggers]
        grammars += [each.grammar for each in self.beginnings]
        return sum({id(grammar): grammar.size for grammar in grammars if grammar is not None}.values())


UNCONSTRAINED = OutputConstraints()


class ConstraintSpec(Struct, frozen=True):
    """What an answer has to be."""

    format: str | None
    """A JSON schema."""
    field: str
    """Of the request, that has it."""
    known: tuple[ToolSpec, ...]
    offers: tuple[ToolSpec, ...]
    demanded: bool
    most: int
    """Calls."""
    uncallable: tuple[str, ...] | None = None
    """Functions that the model has heard of and may not call; None where it has some to call, or has heard of none."""


def constraint_spec(format_: Format, field: str, toolbox: Toolbox, called: Iterable[str] = ()) -> ConstraintSpec:
    """`called`: functions in the calls that the model is told of."""
    names = None
    if not toolbox.specs:
        found = sorted({*called, *(offer.tool.name for offer in toolbox.all_tools)})
        names = tuple(found) if found or toolbox.choice == "none" else None
    return ConstraintSpec(
        _schema(format_), field, toolbox.all_tools, toolbox.specs, toolbox.must_call, toolbox.max_calls, names
    )


def _schema(format_: Format) -> str | None:
    match format_:
        case PlainFormat():
            return None
        case JsonFormat():
            return '{"type":"object"}'
        case _:
            return bytes(format_.schema).decode()


def offer_size(offer: ToolSpec) -> int:
    """Return the bytes that one takes."""
    written = offer.input.definition if isinstance(offer.input, GrammarInput) else ""
    return getsizeof(offer.tool.description) + getsizeof(offer.tool.parameters) + getsizeof(written)


def hold_size(wish: ConstraintSpec, made: OutputConstraints | None) -> int:
    """Return the bytes that both take, about."""
    return getsizeof(wish.format) + sum(map(offer_size, wish.known)) + (0 if made is None else made.size)
