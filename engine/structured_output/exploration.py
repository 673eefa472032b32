"""Explore a compiled schema by writing answers, to find one that would end early because its patterns are too costly.

llguidance derives the states of its lexer while an answer is written, within a limit of work for each token. Only
patterns with large repetition counts can exceed it late: their number of states grows with the text. So each such
pattern is tried alone, with long texts; other schemas are tried with a short answer.
"""

import re
from collections.abc import Iterator
from itertools import chain
from random import Random

from engine.constraint import GrammarError
from engine.json_schema import JSON, Schema
from engine.structured_output.compiled_grammar import DRY_RUN_TOKENS, CompiledGrammar
from engine.structured_output.grammar_constraint import GrammarConstraint
from engine.tokenizer import Vocabulary

EXPLORED_TOKENS = 128
"""Random tokens that explore a schema's grammar."""
_ENDING = (b'"', b",", b":")
_MAX_EXPLORED = 100_000_000
"""Explored tokens times the bytes of the grammar: a token in a long constant takes 10 ms."""

TEXT_TOKENS = 600
"""Tokens of a text that explores a pattern."""
_MASKED = (0, 4, 16, 64, 150, 300, 450, TEXT_TOKENS - 1)
"""Tokens before which the work of all tokens is measured."""
_N_LETTERS = 8
_MIN_TOKENS = 32
"""Tokens that a full lexer must last: compiling it anew and reading the text again takes up to 100 ms."""

MAX_PLAIN_NUMBER = 9
"""Largest number in a pattern that is not explored."""
MAX_PLAIN_OPTIONS = 300
"""Properties of an object, and alternatives, that are not explored."""
_PATTERNS = ("pattern", "patternProperties")
_TEXT_KEYWORDS = ("pattern", "format", "minLength", "maxLength")
_COUNT = re.compile(r"\{(\d+),?(\d*)\}")


def is_risky(schema: JSON) -> bool:
    """True if a checked schema has keywords with which some answer may end early."""
    for part in _parts(schema):
        if any(key in part for key in _PATTERNS):
            return True
        if any(isinstance(value, dict | list) and len(value) > MAX_PLAIN_OPTIONS for value in part.values()):
            return True
    return False


def bounded_texts(schema: JSON) -> Iterator[Schema]:
    """Yield the schemas of texts whose patterns have large repetition counts, or which have several patterns."""
    for part in _parts(schema):
        names = part.get("patternProperties")
        patterns: list[Schema] = [{"pattern": name} for name in names] if isinstance(names, dict) else []
        yield from ({**text, "type": "string"} for text in (_text(part), *patterns) if _counts_far(text))


def _text(schema: Schema) -> Schema:
    """Return the keywords of a schema and its `allOf` that constrain texts."""
    parts = schema.get("allOf")
    inner = [each for each in parts if isinstance(each, dict)] if isinstance(parts, list) else []
    all_of: list[JSON] = list(filter(None, map(_text_keywords, inner)))
    return {**_text_keywords(schema), **({"allOf": all_of} if all_of else {})}


def _text_keywords(schema: Schema) -> Schema:
    return {key: schema[key] for key in _TEXT_KEYWORDS if key in schema}


def _counts_far(schema: Schema) -> bool:
    """True if a text has more than two patterns, or a pattern beside a large number."""
    parts = list(_parts(schema))
    patterns = [pattern for part in parts if isinstance(pattern := part.get("pattern"), str)]
    lengths = [part.get(key) for part in parts for key in ("minLength", "maxLength")]
    numbers = [*lengths, *chain.from_iterable(map(_repetitions, patterns))]
    has_large = any(isinstance(number, int) and number > MAX_PLAIN_NUMBER for number in numbers)
    return len(patterns) > 2 or (bool(patterns) and has_large)


def _repetitions(pattern: str) -> list[int]:
    return [int(number) for found in _COUNT.findall(pattern) for number in found if number]


def _parts(schema: JSON) -> Iterator[Schema]:
    """Yield the schema, all objects inside it, and the definitions that it refers to."""
    definitions = schema.get("$defs") if isinstance(schema, dict) else None
    pending, seen = [schema], set()
    while pending:
        part = pending.pop()
        if isinstance(part, list):
            pending += part
        elif isinstance(part, dict):
            yield part
            pending += [value for key, value in part.items() if key != "$defs"]
            target = str(part.get("$ref")).removeprefix("#/$defs/")
            if isinstance(definitions, dict) and target in definitions and target not in seen:
                seen.add(target)
                pending.append(definitions[target])


def explore(grammar: CompiledGrammar, vocabulary: Vocabulary) -> None:
    """Accept the tokens of a dry run, then random tokens. Raises GrammarError.

    Half of the random tokens end a text or a number, which leads to the next value.
    """
    max_tokens = _MAX_EXPLORED // grammar.size
    grammar.dry_run(min(DRY_RUN_TOKENS, max_tokens))
    random, constraint, ends = Random(0), grammar.start(), vocabulary.end_tokens
    ending = [token for mark in _ENDING for token in vocabulary.encode_bytes(mark)]
    for _ in range(min(EXPLORED_TOKENS, max_tokens)):
        allowed = constraint.allowed(ends)
        found = [token for token in ending if token in allowed] if random.random() < 0.5 else []
        if choices := found or allowed:
            constraint.accept(random.choice(choices))
        else:
            constraint = grammar.start()
    constraint.compute_mask()
    constraint.check()


def explore_text(grammar: CompiledGrammar, vocabulary: Vocabulary) -> None:
    """Write long texts of a schema: of one letter, and of several. Raises GrammarError."""
    for n_letters in (1, _N_LETTERS):
        constraint = grammar.start()
        constraint.accept(vocabulary.encode_bytes(b'"')[0])
        letters: list[int] = []
        for n in range(TEXT_TOKENS):
            if n in _MASKED:
                constraint.compute_mask()
                constraint.check()
            if constraint.n_renewals > n // _MIN_TOKENS:
                raise GrammarError("its patterns take too much memory")
            first = n * 3 % max(len(letters), 1)
            if not any(map(constraint.try_accept, [*letters[first:], *letters[:first]])):
                letters = _letters(constraint, vocabulary)[:n_letters]
                if not any(map(constraint.try_accept, letters)):
                    break


def _letters(constraint: GrammarConstraint, vocabulary: Vocabulary) -> list[int]:
    """Return allowed tokens of one character that do not end the text. Raises GrammarError."""
    allowed = constraint.allowed(vocabulary.end_tokens)
    marks = [chr(n).encode() for n in (*range(97, 123), *range(32, 97)) if chr(n) not in '"\\']
    found = [token for mark in marks for token in vocabulary.encode_bytes(mark)[:1]]
    return [token for token in found if token in allowed]
