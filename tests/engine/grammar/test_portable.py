"""Grammars that XGrammar reads too: each part that it lacks is rewritten, or the grammar is not portable.

`tests/engine/dialects/test_call_grammar.py` has those of all dialects.
"""

import pytest

from engine.grammar import portable

BEYOND = "\x80-\U0010ffff"
REWRITTEN = {
    'start: "a"? <[2]> /[0-9]+/': 'start: "a"? <[2]> /[0-9]+/',
    r"start: /(?s:(\n {0,16}| ))/": r"start: /(?:(\n {0,16}| ))/",
    "start: /(?s:[ \n]{1,4})/?": r"start: /(?:[ \n]{1,4})/?",
    r"start: /(?s:.*)/ /\..[.]/": r"start: /(?:(.|\n)*)/ /\.(.|\n)[.]/",
    'T: /(?s:"[^"]*")/ & ~/(?s:("a"|"b"))/\n': 'T: /(?:"[^"]*")/\n',
    "T: /a+/ & /.{2}/": "T: /a+/",
    r'D: /[[0-9]&&[^"\\\x00-\x1f]]/': "D: /[0-9]/",
    r'D: /[[^a-f]&&[^"\\\x00-\x1f]]+/': r'D: /[^a-f"\\\x00-\x1f]+/',
    r'D: /[\d&&[^"\\\x00-\x1f]]/': "D: /[0-9\x80-\U0010ffff]/",
    r"D: /\d+\w*\s/": rf"D: /[0-9{BEYOND}]+[0-9A-Za-z_{BEYOND}]*[ \t-\r{BEYOND}]/",
    r"D: /[\w.-]\D[\W]/": rf"D: /[0-9A-Za-z_{BEYOND}.-]\D[\W]/",
    r"D: /[^\w\\]\\d/": r"D: /[^\w\\]\\d/",
    'start: " & ~/(?s:.)/" // & (?i:': 'start: " & ~/(?s:.)/" // & (?i:',
    "start: A\n%import common.INT -> A": "start: A\n%import common.INT -> A",
    'start: %json {"pattern": "a&b/(?i:c)"}': 'start: %json {"pattern": "a&b/(?i:c)"}',
    # Grammars with parts that XGrammar does not read:
    "start: /(?i:a)/": "",
    "start: /[a-z--[aeiou]]/": "",
    "start: A & B": "",
    r"start: /[^\W]/": "",
    'start: "a" ~ 2': "",
    "start: %regex {}": "",
    "start: A\n%import python.A": "",
}


@pytest.mark.parametrize("text", REWRITTEN)
def test_grammar_is_rewritten(text: str) -> None:
    assert portable(text) == REWRITTEN[text]
