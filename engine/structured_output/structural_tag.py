"""The grammar of an answer that has parts: reasoning, free text, calls. `phases` defines their order."""

import re

from engine.structured_output.phases import first_phase
from engine.structured_output.tag_parts import TagParts
from engine.structured_output.tag_state import TagState

_ESCAPES = re.compile(r', "json_allowed_escapes": "(?:[^"\\]|\\.)*"')
"""Option that older versions of llguidance do not read, such as llama.cpp's; it only forbids escapes."""


class StructuralTag(TagParts):
    """A grammar of phases; see `engine.constraint`.

    Building a tag takes some milliseconds, starting it microseconds.
    """

    @property
    def lark(self) -> str:
        """Text of the grammar in llguidance's Lark, for other engines; empty if the answer has several parts."""
        if self.answer is None or self.reasoning is not None:
            return ""
        source = self.answer.source
        return "" if source.startswith("{") else _ESCAPES.sub("", source)  # a regex is JSON to llguidance

    def start(self) -> TagState:
        return TagState(first_phase(self))
