"""XGrammar reads the written EBNF, and allows what the grammars in Lark allow: of all dialects, and of real schemas."""

import json
from contextlib import suppress
from time import process_time
from typing import Any

import numpy as np
import pytest

from engine.constraint import GrammarError
from engine.dialects.call_grammar import answer_grammar
from engine.dialects.dialect import Dialect
from engine.structured_output.compiled_grammar import CompiledGrammar
from engine.tokenizer.vocabulary import Vocabulary
from tests.engine.dialects.test_call_grammar import (
    CASES,
    FORMAT,
    byte_vocabulary,
    family_vocabulary,
    functions,
    offered_to,
    walk,
    written,
)
from tests.engine.grammar.ebnf.test_ebnf import SCHEMAS
from tests.engine.structured_output.test_compiler import accepts
from tests.support.schemas import REAL_SCHEMAS

xgrammar = pytest.importorskip("xgrammar")
pytestmark = pytest.mark.slow
SECONDS = 3.0
"""Seconds of the CPU to compile one grammar for a small vocabulary."""


def compiled(grammar: CompiledGrammar, vocabulary: Vocabulary) -> Any:
    """Compile a grammar's EBNF with XGrammar as SGLang does, whose tokens have their names as texts."""
    texts = [vocabulary.bytes_of(id_) or vocabulary.name_of(id_).encode() for id_ in range(len(vocabulary))]
    ends = sorted(vocabulary.end_tokens)
    info = xgrammar.TokenizerInfo(texts, xgrammar.VocabType.RAW, vocab_size=len(texts), stop_token_ids=ends)
    assert grammar.ebnf
    began = process_time()
    found = xgrammar.GrammarCompiler(info, cache_enabled=False).compile_grammar(grammar.ebnf)
    assert process_time() - began < SECONDS
    return found


def check_walks(grammar: CompiledGrammar, vocabulary: Vocabulary, theirs: Any, seed: int) -> None:
    random = np.random.default_rng(seed)
    for bias in (3, 4, 5):
        if (tokens := walk(grammar.start(), vocabulary, random, bias, most=500)) is not None:
            matcher = xgrammar.GrammarMatcher(theirs)
            ends = all(map(matcher.accept_token, tokens)) and (matcher.is_completed() or matcher.is_terminated())
            assert ends, written(vocabulary, tokens)


@pytest.mark.parametrize(("dialect", "control"), CASES)
def test_calls_of_each_dialect_are_allowed(dialect: Dialect, control: bool) -> None:
    vocabulary, grammars = family_vocabulary(dialect, control)
    for format_ in (None, FORMAT):
        text = answer_grammar(dialect, functions(offered_to(dialect)), grammars, max_calls=3, format_=format_)
        grammar = grammars.lark(text)
        check_walks(grammar, vocabulary, compiled(grammar, vocabulary), seed=7)


@pytest.mark.parametrize("name", SCHEMAS)
def test_own_schemas_are_allowed(name: str) -> None:
    vocabulary, grammars = byte_vocabulary(())
    grammar = grammars.json_schema(SCHEMAS[name])
    check_walks(grammar, vocabulary, compiled(grammar, vocabulary), seed=3)


@pytest.mark.skipif(not REAL_SCHEMAS.exists(), reason="the file of real schemas is missing")
@pytest.mark.parametrize("part", range(10))
def test_real_schemas_are_allowed(part: int) -> None:
    vocabulary, grammars = byte_vocabulary(())
    for line in REAL_SCHEMAS.read_text().splitlines()[part::10]:
        real = json.loads(line)
        try:
            grammar = grammars.json_schema(real["schema"])
        except GrammarError:
            continue
        theirs = compiled(grammar, vocabulary)
        texts = [json.dumps(valid, ensure_ascii=escaped) for valid in real["valid"] for escaped in (True, False)]
        for text in texts:
            if accepts(grammar, vocabulary, text):
                matcher = xgrammar.GrammarMatcher(theirs)
                ends = matcher.accept_string(text) and matcher.is_completed()
                assert ends, (real["name"], text)
        with suppress(GrammarError):  # a text that takes llguidance too much work
            check_walks(grammar, vocabulary, theirs, part)
