"""The grammar of an answer that has parts: reasoning, free text, calls. `phases` defines their order."""

from engine.structured_output.phases import first_phase
from engine.structured_output.tag_parts import TagParts
from engine.structured_output.tag_state import TagState


class StructuralTag(TagParts):
    """A grammar of phases; see `engine.constraint`.

    Building a tag takes some milliseconds, starting it microseconds.
    """

    @property
    def lark(self) -> str:
        """Text of the grammar in Lark, for other engines; empty if the answer has several parts."""
        return "" if self.answer is None or self.reasoning is not None else self.answer.portable

    @property
    def ebnf(self) -> str:
        """Text of the grammar in XGrammar's EBNF; empty if the answer has several parts."""
        return "" if self.answer is None or self.reasoning is not None else self.answer.ebnf

    def start(self) -> TagState:
        return TagState(first_phase(self))
