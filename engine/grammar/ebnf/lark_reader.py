"""Read a grammar in llguidance's variant of Lark into expressions, which allow at least the same texts. Pure.

If several terminals must match at once (`&`), the last one counts. Excluded texts (`~`) count if a text may contain
none of them.
"""

import json
import re
from collections.abc import Iterator, Mapping

from engine.grammar import LARK_COMMON
from engine.grammar.ebnf.expressions import (
    ANY_TEXT,
    ControlToken,
    Expression,
    InnerGrammar,
    InOrder,
    OneOf,
    Repeated,
    RuleName,
    TextWithout,
    UnreadGrammar,
    Words,
    in_order,
    one_of,
    repeated,
)
from engine.grammar.ebnf.lark_tokens import LarkTokens
from engine.grammar.ebnf.regex_reader import any_case, read_regex
from engine.grammar.ebnf.widened_schema import widened

START = "start"
"""Name of the first rule."""
BETWEEN = "ignore."
"""Name of the rule for ignored text; no other one has a dot."""


def read_lark(text: str) -> Mapping[str, Expression]:
    """Return the rules by their names; `start` is the first one to apply. Raises UnreadGrammar."""
    reader = _LarkReader(text)
    rules = reader.rules()
    if reader.ignored:
        rules = _LarkReader(text, skips=True).rules()
        rules[BETWEEN] = Repeated(one_of(reader.ignored), 0, None)
        rules[START] = in_order([rules[START], RuleName(BETWEEN)])
    return rules


class _LarkReader:
    def __init__(self, text: str, skips: bool = False) -> None:
        """`skips`: ignored text may precede each terminal."""
        self._tokens = LarkTokens(text)
        self._skips = skips
        self.ignored: list[Expression] = []
        self._in_rule = False
        """True within a rule, false within a terminal."""

    def rules(self) -> dict[str, Expression]:
        found: dict[str, Expression] = {}
        lazy: list[str] = []
        while (token := self._tokens.current) is not None:
            self._tokens.advance()
            if token["rule"]:
                if token["option"] not in (None, "", "lazy"):
                    raise UnreadGrammar(token[0])
                lazy += [token["name"]] * (token["option"] == "lazy")
                self._in_rule = not _is_terminal(token["name"])
                found[token["name"]] = self._alternatives()
            elif token["import"]:
                found |= _imported(token)
            elif token["ignore"]:
                self._in_rule = False
                self.ignored.append(self._alternatives())
            else:
                raise UnreadGrammar(token[0])
        if START not in found:
            raise UnreadGrammar("there is no first rule")
        return found | {name: _shortest(found[name], found) for name in lazy}

    def _alternatives(self) -> Expression:
        options = [self._both()]
        while self._tokens.skip("|"):
            options.append(self._both())
        return one_of(options)

    def _both(self) -> Expression:
        """Read terminals that must match at once."""
        allowed, excluded = list[Expression](), list[Expression]()
        while True:
            if self._tokens.skip("~"):
                excluded.append(self._sequence())
            else:
                allowed.append(self._sequence())
            if not self._tokens.skip("&"):
                break
        body = allowed[-1] if allowed else ANY_TEXT
        texts = [text for each in excluded for text in _contained(each)]
        return TextWithout(tuple(texts)) if texts and body == ANY_TEXT else body

    def _sequence(self) -> Expression:
        tokens, items = self._tokens, list[Expression]()
        while (token := tokens.current) is not None and not self._ends_sequence(token):
            tokens.advance()
            item = self._item(token)
            while tokens.current is not None and tokens.current["times"]:
                item = _repeated(item, tokens.current)
                tokens.advance()
            if tokens.current is not None and tokens.current["label"]:
                tokens.advance()
            items.append(item)
        return in_order(items)

    def _ends_sequence(self, token: re.Match[str]) -> bool:
        return bool(token["rule"] or token["import"] or token["ignore"]) or token["sign"] in (*")]|&",)

    def _item(self, token: re.Match[str]) -> Expression:
        if token["sign"] in ("(", "["):
            found = self._alternatives()
            if not self._tokens.skip(")" if token["sign"] == "(" else "]"):
                raise UnreadGrammar(token[0])
            return found if token["sign"] == "(" else Repeated(found, 0, 1)
        if token["word"] and not _is_terminal(token["word"]):
            return RuleName(token["word"])
        terminal = self._terminal(token)
        return in_order([RuleName(BETWEEN), terminal]) if self._skips and self._in_rule else terminal

    def _terminal(self, token: re.Match[str]) -> Expression:
        if token["text"]:
            return self._words(token)
        if token["regex"]:
            return read_regex(token["regex"][1:-1], token["flags"])
        if token["control"]:
            return ControlToken(int(token["id"]))
        if token["word"]:
            return RuleName(token["word"])
        if token["json"]:
            return InnerGrammar(widened(self._tokens.schema_of(token)))
        if token["lark"]:
            return InnerGrammar(self._tokens.nested_grammar(token))
        raise UnreadGrammar(token[0])

    def _words(self, token: re.Match[str]) -> Expression:
        text = _decoded(token["text"])
        if self._tokens.skip(".."):
            end = self._tokens.current
            if end is None or not end["text"]:
                raise UnreadGrammar(token[0])
            self._tokens.advance()
            return read_regex(f"[\\u{{{ord(text):x}}}-\\u{{{ord(_decoded(end['text'])):x}}}]")
        return any_case(text) if token["case"] else Words(text)


def _is_terminal(name: str) -> bool:
    return name.lstrip("_")[:1].isupper()


def _decoded(literal: str) -> str:
    try:
        return str(json.loads(literal))
    except json.JSONDecodeError as error:
        raise UnreadGrammar(literal) from error


def _imported(token: re.Match[str]) -> dict[str, Expression]:
    names = re.findall(r"\w+", token["several"]) if token["several"] else [token["common"]]
    if not LARK_COMMON.keys() >= {*names}:
        raise UnreadGrammar(token[0])
    return {token["alias"] or name: read_regex(LARK_COMMON[name]) for name in names}


def _repeated(item: Expression, token: re.Match[str]) -> Expression:
    """Return the item with the repetition of a token, `~` or one of those that regexes have."""
    if token["low"] is not None:
        return Repeated(item, int(token["low"]), int(token["high"] or token["low"]))
    return repeated(item, token)


def _contained(excluded: Expression) -> Iterator[str]:
    """Yield texts that a text must not contain, if the excluded ones are all texts with one of them."""
    match excluded:
        case InOrder((begin, texts, end)) if begin == end == ANY_TEXT:
            options = texts.options if isinstance(texts, OneOf) else (texts,)
            if all(isinstance(each, Words) for each in options):
                yield from (each.text for each in options if isinstance(each, Words))


def _shortest(body: Expression, rules: Mapping[str, Expression]) -> Expression:
    """Return the expression of a text that ends where its last words come first; any other one as it is."""
    match rules.get(body.name, body) if isinstance(body, RuleName) else body:
        case InOrder((TextWithout(excluded), Words(closing))):
            return InOrder((TextWithout((*excluded, closing)), Words(closing)))
        case InOrder((begin, Words(closing))) if begin == ANY_TEXT:
            return InOrder((TextWithout((closing,)), Words(closing)))
    return body
