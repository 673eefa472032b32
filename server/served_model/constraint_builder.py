"""What an answer is held to: its format and its calls, and how long may be thought before.

A call that is demanded, and a format, hold from the first word, or from the end of a thought. Calls that are free to
come are held as soon as one begins. Keywords of a schema that can't be enforced are left out where the function isn't
strict, and named.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress

from msgspec import Struct
from msgspec.structs import replace

from engine.chat_template import ChatTemplate
from engine.constraint import GrammarError
from engine.dialects import Dialect, call_grammar
from engine.json_schema import skeleton
from engine.notations import Function
from engine.structured_output import (
    BareCallTrigger,
    CompileCache,
    CompiledGrammar,
    GrammarCompiler,
    ReasoningSpec,
    StructuralTag,
    Trigger,
)
from engine.tokenizer import Vocabulary
from server.protocol.errors import InvalidRequest
from server.served_model.output_constraints import ConstraintSpec, OutputConstraints, hold_size, offer_size
from server.served_model.reasoning_effort import reasoning_budget
from server.tools import ANY_OBJECT, GrammarInput, Input, ToolSpec, arguments_of, by_name, decoded

MOST_FUNCTIONS = 32 << 20
"""Bytes of functions whose schemas were tried."""
MOST_COMPILED = 128 << 20
"""Bytes of the grammars of answers, which may have one for each tool."""


class _Callable(Struct, frozen=True):
    """A function as a grammar has it."""

    function: Function
    unenforced: tuple[str, ...] = ()


class ConstraintKey(Struct, frozen=True):
    """What holds when, of one answer."""

    hold: OutputConstraints
    thought: ReasoningSpec | None

    @property
    def budget(self) -> int | None:
        return None if self.thought is None else self.thought.budget

    @property
    def without_budget(self) -> "ConstraintKey":
        """The same for all budgets."""
        return replace(self, thought=self.thought and replace(self.thought, budget=None))


class ConstraintBuilder:
    """A model's. `hold` and `phases` may take a second, and are for one thread at a time."""

    def __init__(self, vocabulary: Vocabulary, template: ChatTemplate) -> None:
        self._vocabulary = vocabulary
        self._template = template
        self._grammars = GrammarCompiler(vocabulary)
        self._function = CompileCache(self._checked, InvalidRequest, _function_size, MOST_FUNCTIONS)
        self.build = CompileCache(self._hold, InvalidRequest, hold_size, MOST_COMPILED)
        self.phases = CompileCache(self._phases, GrammarError, lambda course, _: course.hold.size, MOST_COMPILED)

    def course(
        self, hold: OutputConstraints, prompt: Sequence[int], effort: str | None, room: int
    ) -> ConstraintKey | None:
        """What holds when; None where nothing does. `room`: see `reasoning_budget`."""
        begun = self._template.thinking(prompt)
        think = begun or next(iter(self._template.dialect.thinks), None)
        budget = reasoning_budget(effort, room)
        dialect = self._template.tool_dialect if hold.names else self._template.dialect
        ends = dialect.interruptions(hold.names)
        thought = None
        if think is not None:
            thought = ReasoningSpec(think.close, think.open, begun is not None, budget, interruptions=ends)
        if hold.free and (thought is None or budget is None):
            return None
        return ConstraintKey(hold, thought)

    def effort(self, effort: str | None) -> str | None:
        """As it is in effect: None where it changes nothing."""
        bounds = bool(self._template.dialect.thinks) and reasoning_budget(effort, 0) is not None
        return effort if bounds or self._template.capabilities.effort else None

    def _phases(self, course: ConstraintKey) -> StructuralTag:
        hold = course.hold
        begun = self._template.dialect.generation_prefix
        after = hold.after if hold.triggers else self._after(self._template.dialect, ())
        thought = course.thought and replace(course.thought, after=after)
        return StructuralTag(self._vocabulary, hold.answer, hold.triggers, thought, hold.beginnings, begun, hold.never)

    def _after(self, dialect: Dialect, functions: Sequence[Function], most: int = 0) -> CompiledGrammar | None:
        """See Hold. Raises GrammarError."""
        resumed = call_grammar.after_reasoning_grammar(dialect, functions, self._grammars, most)
        return None if resumed is None else self._grammars.lark(resumed)

    def _hold(self, wish: ConstraintSpec) -> OutputConstraints:
        """Raises InvalidRequest, naming the field."""
        if wish.format is not None:
            try:
                self._grammars.json_schema(decoded(wish.format))
            except GrammarError as error:
                raise _refused("schema", wish.field, error) from error
        for weakened in (lambda offer, tool: tool, _with_skeleton, _with_any_object):
            tools = {offer.tool.name: weakened(offer, self._function(offer)) for offer in wish.known}
            try:
                return self._compiled(wish, tools)
            except GrammarError as error:
                failed = error  # all together they are too much: the functions that are not strict get less
        if wish.demanded or wish.format is not None or any(offer.strict for offer in wish.offers):
            raise InvalidRequest(f"What is in `tools` cannot be held: {failed}.", param="tools") from failed
        return _marked(OutputConstraints(), wish, tools)

    def _compiled(self, wish: ConstraintSpec, tools: Mapping[str, _Callable]) -> OutputConstraints:
        """Raises GrammarError."""
        template, grammars = self._template, self._grammars
        functions = [tools[offer.tool.name].function for offer in wish.offers]
        dialect = template.tool_dialect if functions else template.dialect
        format_ = None if wish.format is None or wish.demanded else decoded(wish.format)
        if format_ is not None and dialect.plain and not functions:
            return _marked(OutputConstraints(grammars.json_schema(format_)), wish, tools)
        if format_ is not None or wish.demanded:
            answer = grammars.lark(call_grammar.answer_grammar(dialect, functions, grammars, wish.most, format_))
            return _marked(OutputConstraints(answer), wish, tools)
        if not functions:
            names = wish.uncallable
            never = () if names is None else call_grammar.openings(template.tool_dialect, names)
            return _marked(OutputConstraints(never=never), wish, tools)
        marked = call_grammar.triggers(dialect, functions, grammars, wish.most)
        unmarked = {
            function.name: call_grammar.bare_call_grammar(dialect, function, grammars) for function in functions
        }
        hold = OutputConstraints(
            triggers=tuple(Trigger(marker, grammars.lark(rest)) for marker, rest in marked),
            beginnings=tuple(
                BareCallTrigger(name, grammars.lark(rest))
                for name, offer in by_name(wish.offers).items()
                if (rest := unmarked[offer.tool.name]) is not None
            ),
            after=self._after(dialect, functions, wish.most),
        )
        return _marked(hold, wish, tools)

    def _checked(self, offer: ToolSpec) -> _Callable:
        """Raises InvalidRequest where the function is strict and can't be held to its schema."""
        try:
            return self._exactly(offer)
        except GrammarError as error:
            if offer.strict:
                raise _refused("schema" if offer.input is None else "grammar", offer.place, error) from error
            return self._relaxed(offer)

    def _exactly(self, offer: ToolSpec) -> _Callable:
        """Raises GrammarError."""
        form = offer.input
        if isinstance(form, GrammarInput):
            self._written(form)
        schema = arguments_of(offer)
        self._grammars.json_schema(schema)
        function = Function(offer.tool.name, schema, _lark(form))
        if isinstance(form, GrammarInput):
            self._in_json(function)
        self._try(function)
        return _Callable(function)

    def _relaxed(self, offer: ToolSpec) -> _Callable:
        with suppress(GrammarError):
            accepted = self._grammars.relaxed(arguments_of(offer))
            places = tuple(".".join(filter(None, [offer.place, place])) for place in accepted.unenforced)
            for schema, unenforced in ((accepted.schema, places), (skeleton(accepted.schema), (offer.place,))):
                with suppress(GrammarError):
                    function = Function(offer.tool.name, schema)
                    self._try(function)
                    return _Callable(function, unenforced or (offer.place,))
        return _with_any_object(offer, _Callable(Function(offer.tool.name, ANY_OBJECT)))

    def _try(self, function: Function) -> None:
        """Compile a call as the model's family writes it. Raises GrammarError."""
        self._grammars.lark(call_grammar.answer_grammar(self._template.tool_dialect, [function], self._grammars))

    def _written(self, form: GrammarInput) -> None:
        """What the client wrote alone, before it stands among other things. Raises GrammarError."""
        compiled = self._grammars.regex if form.syntax == "regex" else self._grammars.lark
        compiled(form.definition).dry_run()

    def _in_json(self, function: Function) -> None:
        """The same where it will stand. Raises GrammarError."""
        body = call_grammar.arguments_grammar(function, self._grammars)
        try:
            self._grammars.lark(body).dry_run()
        except GrammarError as error:
            raise GrammarError(f"as a text in JSON, {error}") from error


def _with_skeleton(offer: ToolSpec, tool: _Callable) -> _Callable:
    function = replace(tool.function, parameters=skeleton(tool.function.parameters))
    return tool if offer.strict else _Callable(function, (offer.place,))


def _with_any_object(offer: ToolSpec, tool: _Callable) -> _Callable:
    return tool if offer.strict else _Callable(Function(offer.tool.name, ANY_OBJECT), (offer.place,))


def _marked(hold: OutputConstraints, wish: ConstraintSpec, tools: Mapping[str, _Callable]) -> OutputConstraints:
    """Name the functions, and the keywords that it leaves free."""
    names = tuple(offer.tool.name for offer in wish.offers)
    loose = frozenset(name for name, tool in tools.items() if tool.unenforced)
    unenforced = tuple(place for offer in wish.offers for place in tools[offer.tool.name].unenforced)
    return replace(hold, loose=loose, unenforced=unenforced, names=names)


def _function_size(offer: ToolSpec, _: _Callable | None) -> int:
    """Return the bytes that both take. A schema's objects have about eight a character."""
    return offer_size(offer) + 8 * len(offer.tool.parameters)


def _lark(form: Input | None) -> str:
    return form.definition if isinstance(form, GrammarInput) and form.syntax == "lark" else ""


def _refused(what: str, field: str, error: GrammarError) -> InvalidRequest:
    place = f", at `{error.place}`" if error.place and what == "schema" else ""
    return InvalidRequest(f"The {what} in `{field}` cannot be held{place}: {error}.", param=field)
