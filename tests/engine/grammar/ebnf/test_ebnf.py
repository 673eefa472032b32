"""Grammars in XGrammar's EBNF, which allow at least the texts of the grammar in Lark.

`tests/engine/dialects/test_call_grammar.py` has those of all dialects, `test_ebnf_with_xgrammar.py` XGrammar itself.
"""

import re

import numpy as np
import pytest

from engine.grammar import json_directive
from engine.grammar.ebnf import MAX_EBNF, ebnf
from engine.grammar.lark_common import LARK_COMMON
from engine.json_schema import JSON
from tests.engine.dialects.test_call_grammar import byte_vocabulary, walk, written
from tests.engine.grammar.ebnf.recognizer import Ebnf, accepted

WRITTEN = {
    'start: "a"? "b" <[2]> /[0-9]+/': 'root ::= "a"? "b" (Token(2) | "<|2|>") [0-9]+',
    'start: A ("x" | b)+ ["c"] // comment\nA: /\\d{2,}/\nb: "\\"" A{3} A{,4}': r"""
root ::= A.0 ("x" | b.0)+ "c"?
A.0 ::= [^\u0000-\u002f\u003a-\u007f]{2,}
b.0 ::= "\"" A.0{3} A.0{0,4}""",
    'start: /(?s:.*)/ /[^\\n]./ "\\n\\u0001é"': r'root ::= [\u0000-\U0010ffff]* [^\u000a] [^\u000a] "\n\u0001é"',
    r"start: /[^\w\-é]/ /[a-z&&[^aeiou]]/ /\p{Lu}/ /\P{L}/": (
        r"root ::= [\u0000-\u002c\u002e-\u002f\u003a-\u0040\u005b-\u005e\u0060\u007b-\u00e8\u00ea-\U0010ffff] "
        r"[b-df-hj-np-tv-z] [^\u0000-\u0040\u005b-\u007f] [^A-Za-z]"
    ),
    'start: /(?i:k|ab)-z/ "Zü"i': (
        r'root ::= ([^\u0000-JL-jl-\u007f] | [Aa] [Bb]) "-z" [Zz] [^\u0000-\u0040\u005b-\u0060\u007b-\u007f]'
    ),
    "start: /(a|b(?:c|)){2}?/": 'root ::= ("a" | "b" ("c" | "")){2}',
    # The shortest text up to its end:
    'start: r\nr[lazy]: T\nT: (/(?s:.*)/ & ~/(?s:.*(\\<a|b).*)/) "</x>"': """
root ::= r.0
r.0 ::= text.0 "</x>"
text.0 ::= TagDispatch(loop_after_dispatch=false, excludes=("<a", "b", "</x>"))""",
    'start: r\nr[lazy]: /(?s:.*)/ "\\n"': """
root ::= r.0
r.0 ::= text.0 "\\n"
text.0 ::= TagDispatch(loop_after_dispatch=false, excludes=("\\n"))""",
    # The last one of several terminals, without the excluded texts:
    "T: /a+/ & /.{2}/ & ~/aa/\nstart: T": "\nroot ::= T.0\nT.0 ::= [^\\u000a]{2}",
    # Grammars within, each of which has names of its own:
    'start: %lark {\nstart: a "}"\na: "x"\n} a\na: "y" %lark {\nstart: a "}"\na: "x"\n}': """
root ::= start.1 a.0
start.1 ::= a.1 "}"
a.0 ::= "y" start.1
a.1 ::= "x\"""",
    'start: a "b"\na: "c" | D\nD: "d" "e"\n%ignore / /': """
root ::= a.0 ignore..0 "b" ignore..0
a.0 ::= ignore..0 "c" | ignore..0 D.0
ignore..0 ::= " "*
D.0 ::= "de\"""",
    'start: INT "a".."c" W "-" ~ 2 W ~ 1..3\n%import common (INT, WS)\n%import common.WORD -> W': """
root ::= INT.0 [a-c] W.0 "-"{2} W.0{1,3}
INT.0 ::= [0-9]+
W.0 ::= [A-Za-z]+""",
    # XGrammar ends with an end token where the grammar is complete.
    "start: <[1]>": 'root ::= (Token(1) | "<|1|>" | "")',
    # No grammar:
    "start: ?": "",
    "start: r": "",
    'r: "a"': "",
    "start: %regex {}": "",
    "start: <tool>": "",
    r"start: /\bword/": "",
    "start: /(?=a)b/": "",
    "start: /(?m:a)/": "",
    "start: /[a&&b]/": "",
    'start[stop="x"]: /a/': "",
    "%import common.OTHER\nstart: OTHER": "",
    f'start: "{MAX_EBNF * "a"}"': "",
    f"start: {1000 * '('}A{1000 * ')'}": "",
}


@pytest.mark.parametrize("lark", WRITTEN, ids=range(len(WRITTEN)))
def test_grammar_is_written_in_ebnf(lark: str) -> None:
    assert ebnf(lark, "<|{}|>".format, {1}) == WRITTEN[lark].removeprefix("\n")


REGEXES: dict[str, tuple[list[str], list[str]]] = {
    r"[0-9]{4}-[0-9]{2}": (["2026-11"], ["2026-1", "20261-1"]),
    r"\d+[.,]?\s*€?": (["12", "1,  €", "٣."], ["", "a"]),
    r"[\w.+-]+@\w+\.[a-z]{2,3}": (["a.b+c@d.eu", "ü@x.org"], ["a@b", "@b.eu"]),
    r"(?:yes|no|)!": (["yes!", "no!", "!"], ["yesno!", ""]),
    r"[^\"\\\x00-\x1f]*": (["", "aé🚀"], ['"', "\n"]),
    r"[[:alpha:]_][[:^space:]]?": (["_", "ab", "z-"], ["1", "a "]),
    r"[]a\]-]+": (["]a-"], ["b"]),
    r"\u{e9}\x{1F680}\u00e9\x41\.\/": (["é🚀éA./"], ["éA"]),
    r"(?i)straße|K": (["STRAßE", "\u212a"], ["strasse"]),
    r"a(?s:.)b.": (["a\nbc"], ["a\nb\n"]),
    r"[a-z--[aeiou]]+": (["xyz"], ["a"]),
    r"(?:ab{2,3}?)+": (["abbabbb"], ["ab", "abbbb"]),
}
"""Texts that match as a whole, and texts that do not, by the regex."""


@pytest.mark.parametrize("regex", REGEXES)
def test_regex_allows_its_texts(regex: str) -> None:
    texts, others = REGEXES[regex]
    grammar = Ebnf(ebnf(f"start: /{regex}/", str))
    assert [text for text in texts if not grammar.accepts(text)] == []
    assert [text for text in others if grammar.accepts(text)] == []


NODE: JSON = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}, "maxProperties": 1}


@pytest.mark.parametrize("name", LARK_COMMON)
def test_common_terminal_allows_what_llguidance_allows(name: str) -> None:
    vocabulary, grammars = byte_vocabulary(())
    random = np.random.default_rng(1)
    compiled = grammars.lark(f"start: {name}\n%import common.{name}")
    for bias in range(6):
        tokens = walk(compiled.start(), vocabulary, random, bias, most=60) or list(b"/**/" if name[:2] == "C_" else b"")
        assert not tokens or accepted(Ebnf(compiled.ebnf), tokens, vocabulary), written(vocabulary, tokens)


SCHEMAS: dict[str, JSON] = {
    "const": {"const": 'Q"\n\té'},
    "enum": {"enum": ["a", None, "é", True, ["b", "c"], 1.5]},
    "const-object": {"const": {"a": [1, "b"]}},
    "integer": {"type": "integer", "minimum": -3, "exclusiveMaximum": 12},
    "number": {"type": "number", "minimum": 0.5, "maximum": 12},
    "multiple": {"type": "number", "multipleOf": 0.25, "maximum": 9},
    "types": {"type": ["integer", "null", "boolean"]},
    "format": {"type": "string", "format": "date"},
    "pattern": {"type": "string", "pattern": "^[A-Z]{2}[0-9]+$", "minLength": 3},
    "unique": {"type": "array", "items": {"enum": ["a", "b"]}, "uniqueItems": True, "maxItems": 3},
    "prefix": {"prefixItems": [{"type": "integer"}], "items": False, "type": "array"},
    "patterns": {
        "type": "object",
        "properties": {"a": {"type": "null"}},
        "patternProperties": {"^x": {"type": "integer"}},
        "additionalProperties": False,
    },
    "few": {"type": "object", "properties": {"a": {"type": "null"}, "b": {"const": 1}}, "minProperties": 1},
    "one-of": {"oneOf": [{"type": "object", "properties": {"k": {"const": 1}}}, {"type": "integer"}]},
    "all-of": {"allOf": [{"type": "object", "properties": {"a": {"type": "null"}}}, {"required": ["a"]}]},
    "tree": {"$ref": "#/$defs/node", "$defs": {"node": NODE}},
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_allows_what_llguidance_allows(name: str) -> None:
    vocabulary, grammars = byte_vocabulary(())
    random = np.random.default_rng(3)
    compiled = grammars.json_schema(SCHEMAS[name])
    written_out, leaf = Ebnf(compiled.ebnf), Ebnf(ebnf(f"start: {json_directive(SCHEMAS[name])}", str))
    for bias in (1, 2, 3, 4, 5, 6):
        if (tokens := walk(compiled.start(), vocabulary, random, bias, most=300)) is not None:
            for grammar in (written_out, leaf):
                assert accepted(grammar, tokens, vocabulary), written(vocabulary, tokens)


NARROWED: dict[str, tuple[JSON, str]] = {
    "listed texts": ({"enum": ["a", None]}, '"b"'),
    "integer": ({"type": "integer", "minimum": 3}, "1.5"),
    "text": ({"type": "string", "format": "date"}, "1"),
    "types": ({"type": ["null", "string"], "format": "date"}, "{}"),
    "properties": (SCHEMAS["patterns"], "[]"),
    "range": ({"type": "integer", "minimum": 1, "maximum": 9}, "10"),
    "sign": ({"type": "integer", "minimum": 1}, "-1"),
    "items": ({"type": "array", "items": {"type": "null"}, "uniqueItems": True}, "[1]"),
    "white space": ({"type": "array", "uniqueItems": True}, "[1,2]"),
}


@pytest.mark.parametrize("name", NARROWED)
def test_schema_forbids_other_json(name: str) -> None:
    schema, text = NARROWED[name]
    assert not Ebnf(ebnf(f"start: {json_directive(schema)}", str)).accepts(text)


def test_regex_of_a_schema_is_the_one_of_python() -> None:
    """The pattern of an email address, in which only ASCII letters count."""
    grammar = Ebnf(ebnf(f"start: {json_directive({'type': 'string', 'pattern': '^[a-z]+@[a-z]+$'})}", str))
    texts = ["a@b", "ab@c1", "@", "a@b@c", "x@yz"]
    assert [grammar.accepts(f'"{text}"') for text in texts] == [
        re.fullmatch("[a-z]+@[a-z]+", text) is not None for text in texts
    ]
