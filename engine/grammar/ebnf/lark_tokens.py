"""Split a grammar in llguidance's variant of Lark into tokens. Pure."""

import json
import re

from engine.grammar.ebnf.expressions import UnreadGrammar
from engine.json_schema import JSON

_TOKEN = re.compile(
    r"""
    (?P<space>(?:\s|//[^\n]*|\#[^\n]*)+)
  | (?P<rule>[!?]?(?P<name>[A-Za-z_][\w-]*)(?:\.-?\d+)?[ \t]*(?:\[(?P<option>[^\]\n]*)\])?[ \t]*:)
  | (?P<import>%import[ \t]+common[ \t]*\.(?P<common>\w+)(?:[ \t]*->[ \t]*(?P<alias>\w+))?
      |%import[ \t]+common[ \t]*\((?P<several>[^)\n]*)\))
  | (?P<ignore>%ignore\b)
  | (?P<json>%json\s*(?=\{))
  | (?P<lark>%lark\s*\{)
  | (?P<text>"(?:[^"\\\n]|\\.)*")(?P<case>i?)
  | (?P<regex>/(?:[^/\\]|\\.)+/)(?P<flags>[a-z]*)
  | (?P<control><\[(?P<id>\d+)\]>)
  | (?P<times>[*+?]|\{(?P<least>\d*)(?P<open>,?)(?P<most>\d*)\}|~\s*(?P<low>\d+)(?:\s*\.\.\s*(?P<high>\d+))?)
  | (?P<label>->\s*\w+)
  | (?P<word>[A-Za-z_][\w-]*)
  | (?P<sign>\.\.|[()\[\]|&~}])
    """,
    re.VERBOSE | re.DOTALL,
)
_decode_schema = json.JSONDecoder().raw_decode


class LarkTokens:
    """The tokens of a grammar, one after the other, without white space and comments."""

    def __init__(self, text: str) -> None:
        """Read the first token. Raises UnreadGrammar, as each method does that reads on."""
        self._text = text
        self._at = 0
        self._schemas: dict[int, JSON] = {}
        """Schemas by the place of their `%json`."""
        self.current = self._read()
        """The next token; None at the end."""

    def advance(self) -> None:
        """Consume the current token."""
        self.current = self._read()

    def skip(self, sign: str) -> bool:
        """Consume a sign if it is the current token, and return whether it is."""
        found = self.current is not None and self.current["sign"] == sign
        if found:
            self.advance()
        return found

    def schema_of(self, token: re.Match[str]) -> JSON:
        """Return the schema after a `%json`."""
        return self._schemas[token.start()]

    def nested_grammar(self, token: re.Match[str]) -> str:
        """Consume the grammar after a `%lark {` up to its bracket, and return its text.

        Raises UnreadGrammar.
        """
        begin, depth = token.end(), 1
        while depth:
            if (inner := self.current) is None:
                raise UnreadGrammar(token[0])
            end = inner.start()
            depth += bool(inner["lark"]) - (inner["sign"] == "}")
            self.advance()
        return self._text[begin:end]

    def _read(self) -> re.Match[str] | None:
        while self._at < len(self._text):
            token = _TOKEN.match(self._text, self._at)
            if token is None:
                raise UnreadGrammar(self._text[self._at :])
            self._at = token.end()
            if token["json"]:
                self._schemas[token.start()], self._at = _decode_schema(self._text, self._at)
            if not token["space"]:
                return token
        return None
