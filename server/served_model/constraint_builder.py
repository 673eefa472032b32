"""Compiles the constraints of an answer: its format, its calls, and the budget of its reasoning.

A call that is required, and a format, are enforced from the first word on, or from the end of the reasoning. Calls that
the model is free to make are enforced as soon as one begins. Keywords of a schema that cannot be enforced are left out
if the function is not strict, and named in the response.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress

from msgspec import Struct
from msgspec.structs import replace

from engine.chat_template import ChatTemplate
from engine.constraint import GrammarError
from engine.json_schema import skeleton
from engine.notations import Function
from engine.structured_output import CompileCache, GrammarAssembler, OutputGrammars, ReasoningSpec, StructuralTag
from engine.tokenizer import Vocabulary
from server.protocol.errors import InvalidRequest
from server.served_model.output_constraints import ConstraintSpec, OutputConstraints, constraints_size, tool_size
from server.served_model.reasoning_effort import reasoning_budget
from server.tools import ANY_OBJECT, GrammarInput, Input, ToolSpec, arguments_schema, by_name, decode_schema

MAX_FUNCTION_BYTES = 16 << 20
"""Bytes of functions whose schemas can be enforced, and of the others."""
MAX_COMPILED_BYTES = 128 << 20
"""Bytes of the grammars of answers, which may have one for each tool."""


class _Callable(Struct, frozen=True):
    """A function as a grammar has it."""

    function: Function
    unenforced: tuple[str, ...] = ()
    """Places in the request of its keywords that are not enforced."""


class ConstraintKey(Struct, frozen=True):
    """Everything that the structural tag of one answer depends on."""

    constraints: OutputConstraints
    reasoning: ReasoningSpec | None

    @property
    def budget(self) -> int | None:
        """Tokens of reasoning, at most."""
        return None if self.reasoning is None else self.reasoning.budget

    @property
    def without_budget(self) -> "ConstraintKey":
        """The key that answers with different budgets have in common."""
        return replace(self, reasoning=self.reasoning and replace(self.reasoning, budget=None))


class ConstraintBuilder:
    """Compiles for one model. `build` and `tags` may take a second, and one thread uses them at a time."""

    def __init__(self, vocabulary: Vocabulary, template: ChatTemplate) -> None:
        self._template = template
        self._assembler = GrammarAssembler(vocabulary)
        self._brief = GrammarAssembler(vocabulary, self._assembler.compiler.with_short_escapes())
        self._exact_function = CompileCache(self._exact, GrammarError, _function_size, MAX_FUNCTION_BYTES)
        self._relaxed_function = CompileCache(self._relaxed, GrammarError, _function_size, MAX_FUNCTION_BYTES)
        self.build = CompileCache(self._build, InvalidRequest, constraints_size, MAX_COMPILED_BYTES)
        self.tags = CompileCache(self._tag, GrammarError, _tag_size, MAX_COMPILED_BYTES)

    def key(
        self, constraints: OutputConstraints, prompt: Sequence[int], effort: str | None, max_tokens: int
    ) -> ConstraintKey | None:
        """Return the key of the answer's tag; None if nothing is constrained. `max_tokens`: see `reasoning_budget`."""
        begun = self._template.thinking(prompt)
        think = begun or next(iter(self._template.dialect.reasoning_tags), None)
        budget = reasoning_budget(effort, max_tokens)
        dialect = self._template.tool_dialect if constraints.names else self._template.dialect
        ends = dialect.interruptions(constraints.names)
        reasoning = None
        if think is not None:
            reasoning = ReasoningSpec(think.close, think.open, begun is not None, budget, interruptions=ends)
        if constraints.grammars.free and (reasoning is None or budget is None):
            return None
        return ConstraintKey(constraints, reasoning)

    def effort(self, effort: str | None) -> str | None:
        """Return the reasoning effort in effect; None if it changes nothing with this model."""
        bounds = bool(self._template.dialect.reasoning_tags) and reasoning_budget(effort, 0) is not None
        return effort if bounds or self._template.capabilities.effort else None

    def _tag(self, key: ConstraintKey) -> StructuralTag:
        return self._assembler.tag(key.constraints.grammars, key.reasoning, self._template.dialect)

    def _build(self, spec: ConstraintSpec) -> OutputConstraints:
        """Raise InvalidRequest, naming the field, for what cannot be enforced."""
        if spec.format is not None:
            try:
                self._assembler.compiler.json_schema(decode_schema(spec.format))
            except GrammarError as error:
                raise _refused("schema", spec.field, error) from error
        for weakened, assembler in (
            (_unchanged, self._assembler),
            (_unchanged, self._brief),
            (_with_skeleton, self._brief),
            (_with_any_object, self._brief),
        ):
            tools = {tool.name: weakened(tool, self._checked(tool)) for tool in spec.all_specs}
            try:
                return _marked(self._grammars(spec, tools, assembler), spec, tools)
            except GrammarError as error:
                failed = error  # all tools together are too much: those that are not strict are enforced less
        if spec.must_call or spec.format is not None or any(tool.strict for tool in spec.specs):
            raise InvalidRequest(f"The tools in `tools` cannot be enforced: {failed}.", param="tools") from failed
        return _marked(OutputGrammars(), spec, tools)

    def _grammars(
        self, spec: ConstraintSpec, tools: Mapping[str, _Callable], assembler: GrammarAssembler
    ) -> OutputGrammars:
        """Raise GrammarError if the grammar of all tools together is too large."""
        functions = [tools[tool.name].function for tool in spec.specs]
        dialect = self._template.tool_dialect if functions else self._template.dialect
        if spec.must_call:
            return assembler.answer(dialect, functions, spec.max_calls)
        if spec.format is not None:
            schema = decode_schema(spec.format)
            if dialect.plain and not functions:
                return assembler.formatted(schema)
            return assembler.answer(dialect, functions, spec.max_calls, schema)
        if functions:
            names = {name: tools[tool.name].function for name, tool in by_name(spec.specs).items()}
            return assembler.calls(dialect, functions, names, spec.max_calls)
        if spec.uncallable is not None:
            return assembler.no_calls(self._template.tool_dialect, spec.uncallable)
        return OutputGrammars()

    def _checked(self, tool: ToolSpec) -> _Callable:
        """Raise InvalidRequest if the function is strict and its schema cannot be enforced."""
        try:
            # The description, the place among the tools and `strict` may change from request to request.
            plain = replace(tool.tool, description="")
            return self._exact_function(replace(tool, tool=plain, place="", strict=False, found=False))
        except GrammarError as error:
            if tool.strict:
                raise _refused("schema" if tool.input is None else "grammar", tool.place, error) from error
            return self._relaxed_function(tool)

    def _exact(self, tool: ToolSpec) -> _Callable:
        """Raise GrammarError if a part of the schema or grammar cannot be enforced."""
        schema = arguments_schema(tool)
        function = Function(tool.name, schema, _lark(tool.input))
        if isinstance(tool.input, GrammarInput):
            self._assembler.check_text(tool.input.syntax, tool.input.definition, function)
        self._assembler.compiler.json_schema(schema)
        self._assembler.check_call(self._template.tool_dialect, function)
        return _Callable(function)

    def _relaxed(self, tool: ToolSpec) -> _Callable:
        with suppress(GrammarError):
            checked = self._assembler.compiler.relaxed(arguments_schema(tool))
            places = tuple(".".join(filter(None, [tool.place, place])) for place in checked.unenforced)
            for schema, unenforced in ((checked.schema, places), (skeleton(checked.schema), (tool.place,))):
                with suppress(GrammarError):
                    function = Function(tool.name, schema)
                    self._assembler.check_call(self._template.tool_dialect, function)
                    return _Callable(function, unenforced or (tool.place,))
        return _any_object(tool)


def _unchanged(tool: ToolSpec, checked: _Callable) -> _Callable:
    return checked


def _with_skeleton(tool: ToolSpec, checked: _Callable) -> _Callable:
    function = replace(checked.function, parameters=skeleton(checked.function.parameters))
    return checked if tool.strict else _Callable(function, (tool.place,))


def _with_any_object(tool: ToolSpec, checked: _Callable) -> _Callable:
    return checked if tool.strict else _any_object(tool)


def _any_object(tool: ToolSpec) -> _Callable:
    return _Callable(Function(tool.name, ANY_OBJECT), (tool.place,))


def _marked(grammars: OutputGrammars, spec: ConstraintSpec, tools: Mapping[str, _Callable]) -> OutputConstraints:
    """Return the constraints with the names of the functions, and of the keywords that are not enforced."""
    names = tuple(tool.name for tool in spec.specs)
    loose = frozenset(name for name, checked in tools.items() if checked.unenforced)
    unenforced = tuple(place for tool in spec.specs for place in tools[tool.name].unenforced)
    return OutputConstraints(grammars, loose, unenforced, names)


def _tag_size(key: ConstraintKey, _: StructuralTag | None) -> int:
    return key.constraints.grammars.size


def _function_size(tool: ToolSpec, _: _Callable | None) -> int:
    """Return the bytes of a tool and its function. A schema's objects take about eight bytes a character."""
    return tool_size(tool) + 8 * len(tool.tool.parameters)


def _lark(input_: Input | None) -> str:
    return input_.definition if isinstance(input_, GrammarInput) and input_.syntax == "lark" else ""


def _refused(kind: str, field: str, error: GrammarError) -> InvalidRequest:
    place = f", at `{error.place}`" if error.place and kind == "schema" else ""
    return InvalidRequest(f"The {kind} in `{field}` cannot be enforced{place}: {error}.", param=field)
