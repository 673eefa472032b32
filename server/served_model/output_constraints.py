"""Constraints of an answer as data: what a request asks for, what was compiled, and how many bytes both take."""

from collections.abc import Iterable
from sys import getsizeof

from msgspec import Struct

from engine.structured_output import OutputGrammars
from server.protocol.formats import Format, JsonFormat, PlainFormat
from server.tools import GrammarInput, Toolbox, ToolSpec


class OutputConstraints(Struct, frozen=True):
    """The constraints of one answer, compiled."""

    grammars: OutputGrammars = OutputGrammars()
    loose: frozenset[str] = frozenset()
    """Functions, by the model's names, whose schemas are not enforced in full."""
    unenforced: tuple[str, ...] = ()
    """Places in the request of the keywords that are not enforced."""
    names: tuple[str, ...] = ()
    """Functions that can be called, by the model's names."""


UNCONSTRAINED = OutputConstraints()


class ConstraintSpec(Struct, frozen=True):
    """The constraints that a request asks for; equal ones are compiled once."""

    format: str | None
    """JSON schema of the answer."""
    field: str
    """Field of the request that has the schema, for errors."""
    all_specs: tuple[ToolSpec, ...]
    """All tools of the request."""
    specs: tuple[ToolSpec, ...]
    """Tools that can be called."""
    must_call: bool
    """True if the answer must be a call."""
    max_calls: int
    """Maximum number of calls in one answer."""
    uncallable: tuple[str, ...] | None = None
    """Functions that the model knows and may not call; None if it can call some, or knows none."""


def constraint_spec(format_: Format, field: str, toolbox: Toolbox, called: Iterable[str] = ()) -> ConstraintSpec:
    """Return what a request asks for. `called`: functions in the conversation's past calls."""
    names = None
    if not toolbox.specs:
        found = sorted({*called, *(spec.name for spec in toolbox.all_specs)})
        names = tuple(found) if found or toolbox.choice == "none" else None
    return ConstraintSpec(
        _schema(format_), field, toolbox.all_specs, toolbox.specs, toolbox.must_call, toolbox.max_calls, names
    )


def _schema(format_: Format) -> str | None:
    match format_:
        case PlainFormat():
            return None
        case JsonFormat():
            return '{"type":"object"}'
        case _:
            return bytes(format_.schema).decode()


def tool_size(spec: ToolSpec) -> int:
    """Return the bytes of one tool."""
    definition = spec.input.definition if isinstance(spec.input, GrammarInput) else ""
    return getsizeof(spec.tool.description) + getsizeof(spec.tool.parameters) + getsizeof(definition)


def constraints_size(spec: ConstraintSpec, made: OutputConstraints | None) -> int:
    """Return the approximate bytes of a spec and its constraints."""
    return getsizeof(spec.format) + sum(map(tool_size, spec.all_specs)) + (0 if made is None else made.grammars.size)
