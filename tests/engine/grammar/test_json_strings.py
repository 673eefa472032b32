"""A grammar rewritten for a JSON string accepts the same texts as the original."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from engine.constraint import GrammarError
from engine.dialects.call_grammar import answer_grammar
from engine.dialects.dialect import Dialect
from engine.grammar.json_strings import ESCAPES, inside_json_string
from engine.json_schema import JSON
from engine.loader import model_file
from engine.notations.call_format import Function
from engine.structured_output.compiler import GrammarCompiler
from tests.engine.dialects.test_call_grammar import ALTERNATING, byte_vocabulary, calls, family_vocabulary, read, walk
from tests.engine.structured_output.test_compiler import accepts

PATCH = r"""start: begin_patch hunk+ end_patch
begin_patch: "*** Begin Patch" LF
end_patch: "*** End Patch" LF?

hunk: add_hunk | delete_hunk
add_hunk: "*** Add File: " filename LF add_line+
delete_hunk: "*** Delete File: " filename LF
filename: /(.+)/
add_line: "+" /(.*)/ LF -> line

%import common.LF
"""
"""A shortened version of Codex's grammar."""
SUM = r"""start: term ("+" term)*
// what may be added
term: NUMBER | "(" start ")" | TEXT | WORD
TEXT: /"[^"\n]*"/ | /'[^'\\]*'/
%import common.NUMBER
%import common.WORD
"""
GRAMMARS_OF_TEXTS = {
    "words": (r"start: /[a-z]+ \S+/", ['ab c"d', "a \\"], ["ab", "ab c d"]),
    "a dot": ("start: /.{2}/", ['"\t', "\\é"], ["\n\n", "a"]),
    "any character": ("start: /(?s:.{2})/", ['"\n'], ["a"]),
    "dots in groups": ("start: /(?s:.)(.)/", ["\na"], ["a\n"]),
    "a class that excludes": (r'start: /[^a-z"]{2}[\\\]]/', ["A\n\\", "\\\t]"], ['""]', "ab]"]),
    "a range": ('start: " ".."~" "x"', ['"x', "\\x"], ["\nx", "éx"]),
    "classes of Unicode": (r"start: /\p{P}{2}\w\P{L}/", ['"\\a\n'], ['""aa']),
    "characters by number": (r"start: /[\x22\x5c\t]{4}\u{e9}/", ['"\\\t"é'], ["abcdé"]),
    "literals": (r'start: "say \"it\"\n\\" /\/ *#?/', ['say "it"\n\\/ '], ["say it"]),
    "white space that is ignored": ('start: "a" "b"\n%import common.WS\n%ignore WS', ["a\n b", "ab"], ["a c"]),
    "several imports at once": ("start: INT WS WORD\n%import common (INT, WS, WORD)", ["12 \nab"], ["ab"]),
    "imports by another name": ("start: N S\n%import common.INT -> N\n%import common.WS -> S", ["1\n"], ["1"]),
    "lazy repetitions": (r"start: /a+?b*?\\??(cd){1,2}?/", ["abcd", r"a\cdcd"], ["ab", "a?cd"]),
    "lazy repetitions that could end before": ("start: /a.*?b/", ["ab", "axbxb"], ["axb "]),
    "nothing, or something": ("start: /a(b|)c?/", ["a", "ab", "abc"], ["b"]),
    "a patch": (PATCH, ['*** Begin Patch\n*** Add File: a "b"\\n\n+\tx\n*** End Patch'], ["*** Begin Patch\n"]),
    "a sum": (SUM, ['1+(2+"a\\")', "'\n'+x"], ['1+"\n"', "+1"]),
}


@pytest.mark.parametrize(("lark", "accepted", "rejected"), GRAMMARS_OF_TEXTS.values(), ids=GRAMMARS_OF_TEXTS)
def test_inside_json_string_accepts_same_texts_as_plain_grammar(
    lark: str, accepted: list[str], rejected: list[str]
) -> None:
    vocabulary, grammars = byte_vocabulary(())
    inside = grammars.lark(f'start: "\\"" %lark {{\n{inside_json_string(lark)}\n}} "\\""')
    plain = grammars.lark(lark)
    for text in (*accepted, *rejected):
        quoted = json.dumps(text, ensure_ascii=False)
        assert (accepts(plain, vocabulary, text), accepts(inside, vocabulary, quoted)) == (
            text in accepted,
            text in accepted,
        ), text


@pytest.mark.parametrize("regex", ["a.*b", "[^z]*b", "a.*x.*b.*b"])
def test_inside_json_string_after_any_text_compiles_on_real_vocabulary(regex: str, smollm2: Path) -> None:
    vocabulary = model_file.read(smollm2)[1]
    lark = f'start: "\\"" %lark {{\n{inside_json_string(f"start: /{regex}/")}\n}} "\\""'
    assert accepts(GrammarCompiler(vocabulary).lark(lark), vocabulary, '"a text, a number, b and c, and b"')


UNSUPPORTED = [
    "start: A & B\nA: /a/\nB: /b/",
    "start: A\nA: ~/a/",
    "start: /^a/",
    r"start: /\ba/",
    "start: /a b/x",
    "start: /(a+)+*/",
    "start: /a{2}{3}/",
    "start: /(?i)a/",
    "start: /[a[b]]/",
    'start: %json {"type": "string"}',
    "start: <|im_end|>",
    'start: "\\x41"',
    'start: "a\\n"i',
    'start: "a\\u0000"',
]


@pytest.mark.parametrize("lark", UNSUPPORTED)
def test_inside_json_string_of_unsupported_syntax_raises_grammar_error(lark: str) -> None:
    with pytest.raises(GrammarError):
        inside_json_string(lark)


TEXT_INPUT: JSON = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}


@pytest.mark.parametrize(("dialect", "control"), ALTERNATING)
@pytest.mark.slow
def test_answer_grammar_with_custom_grammar_enforces_it_in_every_family(dialect: Dialect, control: bool) -> None:
    vocabulary, grammars = family_vocabulary(dialect, control)
    random = np.random.default_rng(5)
    for lark in (re.sub(r"[+*](?=\)/)", "{1,3}", PATCH), SUM):
        grammar = grammars.lark(answer_grammar(dialect, [Function("patch", TEXT_INPUT, lark)], grammars, max_calls=1))
        texts: list[str] = []
        for bias in (3, 5, 4, 6):
            if len(texts) == 2:
                break
            tokens = walk(grammar.start(), vocabulary, random, bias)
            texts += [] if tokens is None else [calls(read(dialect, vocabulary, tokens))[0][1]["input"]]
        written = [text for text in texts if not any(char < " " and char not in ESCAPES for char in text)]
        assert [text for text in written if not accepts(grammars.lark(lark), byte_vocabulary(())[0], text)] == []
        assert texts
