"""Checks of an upstream's output against its request: the format, the arguments of strict tools, a demanded call. Pure.

The embedded engine enforces these by construction. Here the first part that breaks them ends the answer.
"""

from collections.abc import Callable, Mapping
from functools import partial

from msgspec import Struct

from engine.constraint import GrammarError
from server.protocol.errors import InvalidRequest
from server.protocol.formats import Format, JsonFormat, PlainFormat, SchemaFormat
from server.protocol.request import Request
from server.served_model import OutputConstraints
from server.tools import GrammarInput, Toolbox, ToolSpec, arguments_schema, decode_schema
from server.upstream.transport import OutputMismatch
from server.verification import JsonCheck, Mismatch, VerifiedSchema

ANY_OBJECT = VerifiedSchema({"type": "object"})


class OutputChecks(Struct, frozen=True):
    """Everything that an answer must match."""

    text: VerifiedSchema | None = None
    strict: Mapping[str, ToolSpec] = {}
    """Strict functions by their names. The schema of each is read again for a call: as objects, those of all functions
    would take eight times their bytes of memory, and the collector's time, for one that is called."""
    must_call: bool = False
    stops: bool = False
    """True if a stop string may end the text anywhere."""


NO_CHECKS = OutputChecks()


class VerifiedConstraints(OutputConstraints, frozen=True):
    """Constraints that are verified in the upstream's output."""

    checks: OutputChecks = NO_CHECKS


def constraints(request: Request, field: str, toolbox: Toolbox) -> VerifiedConstraints:
    """Return the constraints of an answer: functions that are not strict are not verified.

    Raises InvalidRequest for a schema that must be enforced and cannot be verified. `field` has the format's schema.
    """
    text = _read(partial(_text_schema, request.format), "schema", field)
    _require_verified(text, "schema", field)
    for spec in toolbox.specs:
        if spec.strict:
            kind = "schema" if spec.input is None else "grammar"
            _require_verified(_read(partial(_arguments, spec), kind, spec.place), kind, spec.place)
    loose = [spec for spec in toolbox.specs if not spec.strict]
    return VerifiedConstraints(
        loose=frozenset(spec.name for spec in loose),
        unenforced=tuple(spec.place for spec in loose),
        names=tuple(spec.name for spec in toolbox.specs),
        checks=OutputChecks(
            text=None if toolbox.must_call else text,
            strict={spec.name: spec for spec in toolbox.specs if spec.strict},
            must_call=toolbox.must_call,
            stops=request.stop is not None,
        ),
    )


def constraints_bytes(format_: Format, toolbox: Toolbox) -> int:
    """Return the bytes that `constraints` reads."""
    size = len(bytes(format_.schema)) if isinstance(format_, SchemaFormat) else 0
    return size + sum(_bytes(spec) for spec in toolbox.specs if spec.strict)


def checks_of(constraints: OutputConstraints) -> OutputChecks:
    """Return the checks of constraints, which are those of `constraints` or UNCONSTRAINED."""
    return constraints.checks if isinstance(constraints, VerifiedConstraints) else NO_CHECKS


class RunningChecks:
    """The checks of one answer while it streams. Each method raises OutputMismatch."""

    def __init__(self, checks: OutputChecks) -> None:
        self._checks = checks
        self._text = None if checks.text is None else JsonCheck(checks.text)
        self._call: JsonCheck | None = None
        self._name = ""
        self._calls = 0
        self._has_text = False

    @property
    def drops_text(self) -> bool:
        """True if the answer must consist of calls, so that text around them is left out."""
        return self._checks.must_call

    def text(self, text: str) -> None:
        self._has_text |= bool(text.strip())
        if self._text is not None:
            _check(lambda check: check.feed(text), self._text, "the format of the answer")

    def begin_call(self, name: str) -> None:
        self._calls += 1
        self._name = name
        spec = self._checks.strict.get(name)
        self._call = None if spec is None else JsonCheck(_arguments(spec))

    def arguments(self, text: str) -> None:
        if self._call is not None:
            _check(lambda check: check.feed(text), self._call, f"the tool {self._name!r}")

    def end_call(self) -> None:
        if self._call is not None:
            _check(lambda check: check.finish(), self._call, f"the tool {self._name!r}")

    def end(self) -> None:
        """Check an answer that ended by itself."""
        if self._checks.must_call and not self._calls:
            raise OutputMismatch("The upstream's model calls no tool, although `tool_choice` requires a call.")
        if self._text is not None and (self._has_text or not self._calls) and not self._checks.stops:
            _check(lambda check: check.finish(), self._text, "the format of the answer")


def _check(step: Callable[[JsonCheck], None], check: JsonCheck, name: str) -> None:
    try:
        step(check)
    except Mismatch as error:
        raise OutputMismatch(f"The upstream's output does not match the schema of {name}: {error}.") from error


def _text_schema(format_: Format) -> VerifiedSchema | None:
    if isinstance(format_, PlainFormat):
        return None
    if isinstance(format_, JsonFormat):
        return ANY_OBJECT
    return VerifiedSchema(decode_schema(bytes(format_.schema).decode()))


def _bytes(spec: ToolSpec) -> int:
    """Return the bytes that the checks of a tool are made of."""
    return len(spec.tool.parameters) + (len(spec.input.definition) if isinstance(spec.input, GrammarInput) else 0)


def _arguments(spec: ToolSpec) -> VerifiedSchema:
    return VerifiedSchema(arguments_schema(spec))


def _read(read: Callable[[], VerifiedSchema | None], kind: str, field: str) -> VerifiedSchema | None:
    try:
        return read()
    except GrammarError as error:
        raise InvalidRequest(f"The {kind} in `{field}` cannot be enforced: {error}.", param=field) from error


def _require_verified(schema: VerifiedSchema | None, kind: str, field: str) -> None:
    paths = [] if schema is None else schema.unverified()
    if paths:
        message = f"The {kind} in `{field}` cannot be enforced with an upstream, at `{paths[0]}`: leave that out."
        raise InvalidRequest(message, param=field)
