"""Assemble the compiled grammars of an output: the dialect's calls, a format, and the text after reasoning."""

from collections.abc import Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from engine.constraint import GrammarError
from engine.dialects import Dialect, call_grammar
from engine.json_schema import JSON
from engine.notations import Function
from engine.structured_output.compiled_grammar import CompiledGrammar
from engine.structured_output.compiler import GrammarCompiler
from engine.structured_output.specs import BareCallTrigger, ReasoningSpec, Trigger
from engine.structured_output.structural_tag import StructuralTag
from engine.tokenizer import Vocabulary


class OutputGrammars(Struct, frozen=True):
    """The compiled constraints of one output."""

    answer: CompiledGrammar | None = None
    """Grammar of the whole output except the reasoning."""
    triggers: tuple[Trigger, ...] = ()
    """Grammars of calls, by the marker that begins each."""
    bare_calls: tuple[BareCallTrigger, ...] = ()
    """Grammars of calls without a marker, by function name."""
    after: CompiledGrammar | None = None
    """Grammar of the text after reasoning that the budget ended."""
    forbidden: tuple[str, ...] = ()
    """Markers of calls that the output must not contain."""

    @property
    def free(self) -> bool:
        """True if nothing is constrained."""
        return not (self.answer or self.triggers or self.bare_calls or self.forbidden)

    @property
    def size(self) -> int:
        """Return the estimated bytes of the grammars; a grammar that is used twice counts once."""
        grammars = [self.answer, self.after]
        grammars += [each.grammar for each in self.triggers]
        grammars += [each.grammar for each in self.bare_calls]
        return sum({id(grammar): grammar.size for grammar in grammars if grammar is not None}.values())


class GrammarAssembler:
    """Assembles the grammars of a model's outputs. Each method may take a second, and one thread uses it at a time."""

    def __init__(self, vocabulary: Vocabulary, compiler: GrammarCompiler | None = None) -> None:
        self._vocabulary = vocabulary
        self.compiler = compiler or GrammarCompiler(vocabulary)

    def formatted(self, schema: JSON) -> OutputGrammars:
        """Constrain the whole output to a JSON schema. Raises GrammarError."""
        return OutputGrammars(self.compiler.json_schema(schema))

    def answer(
        self, dialect: Dialect, functions: Sequence[Function], max_calls: int, schema: "JSON | None" = None
    ) -> OutputGrammars:
        """Constrain the output to calls, or to calls or a JSON schema. Raises GrammarError."""
        grammar = call_grammar.answer_grammar(dialect, functions, self.compiler, max_calls, schema)
        return OutputGrammars(self.compiler.lark(grammar))

    def calls(
        self, dialect: Dialect, functions: Sequence[Function], names: Mapping[str, Function], max_calls: int
    ) -> OutputGrammars:
        """Constrain every call from its beginning on; text stays free. Raises GrammarError.

        `names` maps each name that the model may write to its function.
        """
        bare = {each.name: call_grammar.bare_call_grammar(dialect, each, self.compiler) for each in functions}
        marked = call_grammar.triggers(dialect, functions, self.compiler, max_calls)
        return OutputGrammars(
            triggers=tuple(Trigger(marker, self.compiler.lark(rest)) for marker, rest in marked),
            bare_calls=tuple(
                BareCallTrigger(name, self.compiler.lark(rest))
                for name, function in names.items()
                if (rest := bare[function.name]) is not None
            ),
            after=self._after_reasoning(dialect, functions, max_calls),
        )

    def no_calls(self, dialect: Dialect, names: Sequence[str]) -> OutputGrammars:
        """Forbid the markers of calls to functions that the model knows and may not call."""
        return OutputGrammars(forbidden=call_grammar.openings(dialect, names))

    def tag(self, grammars: OutputGrammars, reasoning: ReasoningSpec | None, dialect: Dialect) -> StructuralTag:
        """Return the constraint that selects the grammar for each part of the output. Raises GrammarError."""
        after = grammars.after if grammars.triggers else self._after_reasoning(dialect)
        return StructuralTag(
            self._vocabulary,
            grammars.answer,
            grammars.triggers,
            reasoning and replace(reasoning, after=after),
            grammars.bare_calls,
            dialect.generation_prefix,
            grammars.forbidden,
        )

    def check_call(self, dialect: Dialect, function: Function) -> None:
        """Compile a call of the function alone. Raises GrammarError."""
        self.compiler.lark(call_grammar.answer_grammar(dialect, [function], self.compiler))

    def check_text(self, syntax: str, definition: str, function: Function) -> None:
        """Compile a client's Lark grammar or regex alone, and inside the JSON of a call. Raises GrammarError."""
        compiled = self.compiler.regex if syntax == "regex" else self.compiler.lark
        compiled(definition).dry_run()
        arguments = call_grammar.arguments_grammar(function, self.compiler)
        try:
            self.compiler.lark(arguments).dry_run()
        except GrammarError as error:
            raise GrammarError(f"as a text in JSON, {error}") from error

    def _after_reasoning(
        self, dialect: Dialect, functions: Sequence[Function] = (), max_calls: int = 0
    ) -> CompiledGrammar | None:
        grammar = call_grammar.after_reasoning_grammar(dialect, functions, self.compiler, max_calls)
        return None if grammar is None else self.compiler.lark(grammar)
