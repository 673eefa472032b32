"""Cut a long text where no token can cross, so that the ids of the pieces, joined, are the ids of the whole text.

A piece is the unit in which a large prompt can be refused or abandoned. The rule depends on the vocabulary's kind:

- Byte-level BPE: at the edges of words that every known pre-tokenizer has. Each of its patterns ends a word before a
  space that follows other text, and after the last letter of a word.
- SentencePiece: between two characters that no token has side by side. Each join of two tokens is a token itself, so
  none can cross that place.

A text without such a place, such as a megabyte of one letter, stays whole.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import TypeAlias

Pieces: TypeAlias = Callable[[str, int], Iterator[str]]
"""Text and least characters of a piece -> texts whose ids, joined, are the text's ids."""

WINDOW = 1 << 16
"""Maximum characters of one regex search, since no other thread runs meanwhile."""
SPACE = "▁"
"""SentencePiece's space."""
BEFORE = ' \n\t",.:;(<[{/+=。，、！？'
"""Characters before which SentencePiece texts are cut: few tokens have them after another character."""

_WORD_EDGE = re.compile(
    # Letters whose class is the same in all versions of Unicode: Latin, kana, CJK ideographs, hangul.
    r"(?<=\S)(?= )|(?<=[A-Za-z\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fa5\uac00-\ud7a3])"
    r"(?=[\x00-@\[-`{-\x7f\u3001\u3002\uff01\uff0c\uff1f])"
)
_BEFORE = re.compile(f"(?<=.)(?=[{re.escape(BEFORE)}])", re.DOTALL)


def whole(text: str, least: int) -> Iterator[str]:
    """Yield the whole text: the pieces for a tokenizer whose rules are unknown."""
    yield text


def words_of(text: str) -> list[str]:
    """Return all pieces of a text by the rule of byte-level BPE without user-defined tokens."""
    return _WORD_EDGE.split(text)


def word_pieces(user_defined: Iterable[str]) -> Pieces:
    """Return the rule of byte-level BPE. User-defined tokens are matched before words are."""
    crossed = {pair for token in user_defined for pair in pairwise(token)}

    def is_cut(text: str, place: int) -> bool:
        return (text[place - 1], text[place]) not in crossed

    return partial(_pieces, pattern=_WORD_EDGE, is_cut=is_cut, dropped=0)


def token_pieces(tokens: Sequence[str], user_defined: Iterable[str], prefixed: bool) -> Pieces:
    """Return the rule of SentencePiece, for all tokens of the file.

    `prefixed`: True if the tokenizer prepends a space to each text. It then stands for the space at which the text was
    cut. A user-defined token gets no such space and may begin with that one.
    """
    joined = "\0".join(tokens).replace(" ", SPACE)
    crossed = frozenset(re.findall(f"(?=(.[{re.escape(BEFORE.replace(' ', SPACE))}]))", joined, re.DOTALL))
    characters = frozenset(token for token in tokens if len(token) == 1)
    first = {token[:1] for token in user_defined}

    def is_cut(text: str, place: int) -> bool:
        before, after = text[place - 1].replace(" ", SPACE), text[place].replace(" ", SPACE)
        if before + after in crossed or before not in characters or after not in characters:
            return False
        return not prefixed or (after == SPACE and place + 1 < len(text) and first.isdisjoint(text[place : place + 2]))

    return partial(_pieces, pattern=_BEFORE, is_cut=is_cut, dropped=int(prefixed))


def _pieces(
    text: str, least: int, pattern: re.Pattern[str], is_cut: Callable[[str, int], bool], dropped: int
) -> Iterator[str]:
    """Yield the texts between places of the pattern that are cuts, without `dropped` characters after each cut."""
    start = 0
    while (cut := _first(pattern, text, start + least, is_cut)) is not None:
        yield text[start:cut]
        start = cut + dropped
    yield text[start:]


def _first(pattern: re.Pattern[str], text: str, begin: int, is_cut: Callable[[str, int], bool]) -> int | None:
    for window in range(begin, len(text), WINDOW):
        for match in pattern.finditer(text, window, window + WINDOW):
            if is_cut(text, match.start()):
                return match.start()
    return None
