"""Compile Lark grammars and regexes with llguidance for a model's vocabulary, within limits of work."""

from collections.abc import Sequence
from functools import cached_property, lru_cache, partial

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from engine.constraint import GrammarError
from engine.structured_output.compiled_grammar import CompiledGrammar
from engine.tokenizer import Vocabulary

MAX_CHARACTERS = 65_536
"""Characters of a grammar or a schema. Compiling as many takes a quarter of a second; twice as many take a second."""

MAX_CACHED_TEXTS = 4096
"""Number of forced texts whose tokens are cached. They take 1 MB."""
MAX_CACHED_BYTES = 32
"""Length of the longest of them."""

# A state of the lexer takes 1 to 2 kB; a full lexer is replaced. /.*b/ in a quoted text takes 150,000 items over all
# tokens, and 15 ms; an optional property takes four items of a row. llguidance counts work, not time: 50,000 units of
# fuel take about 1 ms.
_LIMITS = LLParserLimits(
    max_lexer_states=50_000,
    step_lexer_fuel=5_000_000,
    max_grammar_size=100_000,
    max_items_in_row=8_000,
    step_max_items=1_000_000,
    verbose_errors=False,
)
_EXPLORED_LIMITS = LLParserLimits(
    max_lexer_states=50_000,
    step_lexer_fuel=1_000_000,
    max_grammar_size=100_000,
    max_items_in_row=5_000,
    step_max_items=500_000,
    verbose_errors=False,
)
"""Limits of a grammar that is explored. A token of an answer may take five times the work of any explored one."""


def lark_source(text: str) -> str:
    """Return a Lark grammar as llguidance takes it."""
    source: str = LLMatcher.grammar_from_lark(text)
    return source


def regex_source(pattern: str) -> str:
    """Return the grammar of a regex that the whole text must match, as llguidance takes it."""
    source: str = LLMatcher.grammar_from_regex(pattern)
    return source


class SourceCompiler:
    """Compiles sources for one vocabulary. The first compilation takes 100 ms more, to index all tokens."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def compile(self, source: str) -> CompiledGrammar:
        """Compile a grammar and compute its first mask: most grammars that are too large or too deep fail there.

        Raises GrammarError.
        """
        if len(source) > MAX_CHARACTERS:
            raise GrammarError(f"it has {len(source)} characters; at most {MAX_CHARACTERS} are allowed")
        grammar = self._compiled(source, _LIMITS)
        first = grammar.start()
        first.compute_mask()
        first.check()
        return grammar

    def compile_for_exploration(self, source: str) -> CompiledGrammar:
        """Compile a grammar within the limits of an exploration. Raises GrammarError."""
        return self._compiled(source, _EXPLORED_LIMITS)

    def _compiled(self, source: str, limits: LLParserLimits) -> CompiledGrammar:
        make = partial(LLMatcher, self._tokenizer, source, log_level=0, limits=limits)
        return CompiledGrammar(make, self._vocabulary, _estimated_size(source), source)

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        if not self._vocabulary.end_tokens:
            raise GrammarError("the model's file names no end token")
        return LLTokenizer(TokenizerWrapper(_Tokens(self._vocabulary)), eos_token=sorted(self._vocabulary.end_tokens))


class _Tokens:
    """A vocabulary with the attributes that llguidance's TokenizerWrapper reads."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.eos_token_id = min(vocabulary.end_tokens)
        self.bos_token_id = vocabulary.bos
        ids = range(len(vocabulary))
        self.special_token_ids = [id_ for id_ in ids if not vocabulary.bytes_of(id_)]
        self.tokens = [vocabulary.bytes_of(id_) or vocabulary.name_of(id_).encode() for id_ in ids]
        self._encode = vocabulary.encode_bytes
        self._cached_encode = lru_cache(MAX_CACHED_TEXTS)(lambda data: tuple(vocabulary.encode_bytes(data)))

    def __call__(self, data: bytes) -> Sequence[int]:
        """Return the model's own tokens of a text. llguidance prefers them to other tokenizations.

        It asks before most masks, for the text that a grammar forces next: for the same marks again and again.
        """
        return self._cached_encode(data) if len(data) <= MAX_CACHED_BYTES else self._encode(data)


def _estimated_size(source: str) -> int:
    """Return the estimated bytes of a compiled grammar.

    The schemas of a thousand real tools take 200 kB each and are estimated at 460 kB. Long constants, the costliest
    grammars found, take twice their estimate.
    """
    return 100_000 + 200 * len(source)
