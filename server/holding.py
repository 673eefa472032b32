"""What an answer is held to: its format and its calls, and how long may be thought before.

A call that is demanded, and a format, hold from the first word, or from the end of a thought. Calls that are free to
come are held as soon as one begins. A function that can't be held to its schema, and needn't, may have any object for
its arguments.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine import (
    Beginning,
    ChatTemplate,
    Function,
    GrammarError,
    Grammars,
    Phases,
    Thought,
    Trigger,
    Vocabulary,
    forms,
)
from engine.dialect import Dialect
from engine.grammar import Grammar
from engine.json_schema import JSON
from server.effort import thought_budget
from server.errors import InvalidRequest
from server.formats import Format, JsonFormat, PlainFormat
from server.memory import Memory
from server.offers import GrammarInput, Input, Offer, by_name
from server.tools import Toolbox

KEPT = 16
"""Of what was compiled: an application asks for the same again and again."""
KEPT_FUNCTIONS = 512
ANY_OBJECT: JSON = {"type": "object"}


class Hold(Struct, frozen=True):
    """What an answer is held to, compiled."""

    answer: Grammar | None = None
    triggers: tuple[Trigger, ...] = ()
    beginnings: tuple[Beginning, ...] = ()
    after: Grammar | None = None
    """Of a thought that had to end."""
    loose: frozenset[str] = frozenset()
    """The functions, by the model's names, that are not held to their schemas."""
    never: tuple[str, ...] = ()
    """Markers of calls, in an answer that may have none."""

    @property
    def free(self) -> bool:
        return not (self.answer or self.triggers or self.beginnings or self.never)


FREE = Hold()


class Course(Struct, frozen=True):
    """What holds when, of one answer."""

    hold: Hold
    thought: Thought | None

    @property
    def budget(self) -> int | None:
        return None if self.thought is None else self.thought.budget

    @property
    def boundless(self) -> "Course":
        """The same for all budgets."""
        return replace(self, thought=self.thought and replace(self.thought, budget=None))


class Wish(Struct, frozen=True):
    """What an answer has to be."""

    format: str | None
    """A JSON schema."""
    field: str
    """Of the request, that has it."""
    known: tuple[Offer, ...]
    offers: tuple[Offer, ...]
    demanded: bool
    most: int
    """Calls."""
    uncallable: tuple[str, ...] | None = None
    """Functions that the model has heard of and may not call; None where it has some to call, or has heard of none."""


def wish(format_: Format, field: str, toolbox: Toolbox, called: Iterable[str] = ()) -> Wish:
    """`called`: functions in the calls that the model is told of."""
    names = None
    if not toolbox.offers:
        found = sorted({*called, *(offer.tool.name for offer in toolbox.known)})
        names = tuple(found) if found or toolbox.choice == "none" else None
    return Wish(_schema(format_), field, toolbox.known, toolbox.offers, toolbox.demanded, toolbox.most, names)


def _schema(format_: Format) -> str | None:
    match format_:
        case PlainFormat():
            return None
        case JsonFormat():
            return '{"type":"object"}'
        case _:
            return bytes(format_.schema).decode()


class Holding:
    """A model's. `hold` and `phases` may take a second, and are for one thread at a time."""

    def __init__(self, vocabulary: Vocabulary, template: ChatTemplate) -> None:
        self._vocabulary = vocabulary
        self._template = template
        self._grammars = Grammars(vocabulary)
        self._function = lru_cache(KEPT_FUNCTIONS)(self._checked)
        self.hold = Memory(self._hold, InvalidRequest, KEPT)
        self.phases = Memory(self._phases, GrammarError, KEPT)

    def course(self, hold: Hold, prompt: Sequence[int], effort: str | None, room: int) -> Course | None:
        """What holds when; None where nothing does. `room`: see `thought_budget`."""
        begun = self._template.thinking(prompt)
        think = begun or next(iter(self._template.dialect.thinks), None)
        budget = thought_budget(effort, room)
        thought = None if think is None else Thought(think.close, think.open, begun is not None, budget)
        if hold.free and (thought is None or budget is None):
            return None
        return Course(hold, thought)

    def effort(self, effort: str | None) -> str | None:
        """As it is in effect: None where it changes nothing."""
        bounds = bool(self._template.dialect.thinks) and thought_budget(effort, 0) is not None
        return effort if bounds or self._template.manners.effort else None

    def _phases(self, course: Course) -> Phases:
        hold = course.hold
        begun = self._template.dialect.begun
        after = hold.after if hold.triggers else self._after(self._template.dialect, ())
        thought = course.thought and replace(course.thought, after=after)
        return Phases(self._vocabulary, hold.answer, hold.triggers, thought, hold.beginnings, begun, hold.never)

    def _after(self, dialect: Dialect, functions: Sequence[Function], most: int = 0) -> Grammar | None:
        """See Hold. Raises GrammarError."""
        resumed = forms.resumed(dialect, functions, self._grammars, most)
        return None if resumed is None else self._grammars.lark(resumed)

    def _hold(self, wish: Wish) -> Hold:
        """Raises InvalidRequest, naming the field."""
        if wish.format is not None:
            try:
                self._grammars.json_schema(_decoded(wish.format))
            except GrammarError as error:
                raise _refused("schema", wish.field, error) from error
        loose = frozenset(offer.tool.name for offer in wish.known if self._function(offer) is None)
        try:
            return self._compiled(wish, loose)
        except GrammarError:
            # All together they are too much: those that need not be held are not.
            loose = frozenset(offer.tool.name for offer in wish.known if not offer.strict)
        try:
            return self._compiled(wish, loose)
        except GrammarError as error:
            if wish.demanded or wish.format is not None or any(offer.strict for offer in wish.offers):
                raise InvalidRequest(f"What is in `tools` cannot be held: {error}.", param="tools") from error
            return Hold(loose=loose)

    def _compiled(self, wish: Wish, loose: frozenset[str]) -> Hold:
        """Raises GrammarError."""
        template, grammars = self._template, self._grammars
        functions = [
            (None if offer.tool.name in loose else self._function(offer)) or Function(offer.tool.name, ANY_OBJECT)
            for offer in wish.offers
        ]
        dialect = template.calling if functions else template.dialect
        format_ = None if wish.format is None or wish.demanded else _decoded(wish.format)
        if format_ is not None and dialect.plain and not functions:
            return Hold(grammars.json_schema(format_), loose=loose)
        if format_ is not None or wish.demanded:
            return Hold(grammars.lark(forms.answer(dialect, functions, grammars, wish.most, format_)), loose=loose)
        if not functions:
            names = wish.uncallable
            return Hold(loose=loose, never=() if names is None else forms.openings(template.calling, names))
        marked = forms.triggers(dialect, functions, grammars, wish.most)
        unmarked = {function.name: forms.beginning(dialect, function, grammars) for function in functions}
        return Hold(
            triggers=tuple(Trigger(marker, grammars.lark(rest)) for marker, rest in marked),
            beginnings=tuple(
                Beginning(name, grammars.lark(rest))
                for name, offer in by_name(wish.offers).items()
                if (rest := unmarked[offer.tool.name]) is not None
            ),
            after=self._after(dialect, functions, wish.most),
            loose=loose,
        )

    def _checked(self, offer: Offer) -> Function | None:
        """None where it can't be held, and need not be. Raises InvalidRequest."""
        grammars, form = self._grammars, offer.input
        try:
            if isinstance(form, GrammarInput):
                self._written(form)
            schema = _arguments(offer)
            grammars.json_schema(schema)
            function = Function(offer.tool.name, schema, _lark(form))
            if isinstance(form, GrammarInput):
                self._in_json(function)
            grammars.lark(forms.answer(self._template.calling, [function], grammars))  # as the model's family writes it
            return function
        except GrammarError as error:
            if not offer.strict:
                return None
            raise _refused("schema" if form is None else "grammar", offer.place, error) from error

    def _written(self, form: GrammarInput) -> None:
        """What the client wrote alone, before it stands among other things. Raises GrammarError."""
        compiled = self._grammars.regex if form.syntax == "regex" else self._grammars.lark
        compiled(form.definition).attempt()

    def _in_json(self, function: Function) -> None:
        """The same where it will stand. Raises GrammarError."""
        body = forms.arguments(function, self._grammars)
        try:
            self._grammars.lark(body).attempt()
        except GrammarError as error:
            raise GrammarError(f"as a text in JSON, {error}") from error


def _lark(form: Input | None) -> str:
    return form.definition if isinstance(form, GrammarInput) and form.syntax == "lark" else ""


def _arguments(offer: Offer) -> JSON:
    """What its arguments are held to. Raises GrammarError."""
    schema = _decoded(offer.tool.parameters)
    assert isinstance(schema, dict), "they were read"
    if isinstance(offer.input, GrammarInput) and offer.input.syntax == "regex":
        schema["properties"] = {"input": {"type": "string", "pattern": f"^({offer.input.definition})$"}}
    if schema.setdefault("type", "object") != "object":
        raise GrammarError("the arguments of a function are an object", "type")
    properties, required = schema.get("properties"), schema.get("required", [])
    named = isinstance(properties, dict) and isinstance(required, list) and set(properties) >= set(map(str, required))
    if named and not schema.keys() & _SPEAKS_OF_OTHERS:
        schema["additionalProperties"] = False
    return schema


_SPEAKS_OF_OTHERS = frozenset(
    ("additionalProperties", "patternProperties", "minProperties", "$ref", "anyOf", "oneOf", "allOf")
)
"""Keywords beside which a schema may mean properties that it doesn't name. Where none of them stands, arguments have
those of the schema and no others: others would be valid too, but models make them up without end."""


def _decoded(schema: str) -> JSON:
    """Raises GrammarError."""
    try:
        decoded: JSON = msgspec.json.decode(schema)
    except RecursionError as error:
        raise GrammarError("it is nested too deeply") from error
    return decoded


def _refused(what: str, field: str, error: GrammarError) -> InvalidRequest:
    place = f", at `{error.place}`" if error.place and what == "schema" else ""
    return InvalidRequest(f"The {what} in `{field}` cannot be held{place}: {error}.", param=field)
