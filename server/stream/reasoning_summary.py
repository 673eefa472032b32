"""Summary of a reasoning text. Pure.

The server writes no text of its own: a summary consists of the model's words. A concise one has the first sentence of
each paragraph, a detailed one has all paragraphs.
"""

import re

PARAGRAPH_END = re.compile(r"\n[ \t]*\n")
SENTENCE_END = re.compile(r"[.!?\u2026][\"')\]]*(?=\s)|[\u3002\uff01\uff1f]|\n")
"""Ends of sentences: a mark before white space, an ideographic mark, or a line break. "1.5" goes on."""
MIN_WORDS = 3
"""Words of a sentence, at least: "1." and "Okay." belong to the next one."""


def summary_parts(text: str, kind: str | None) -> list[str]:
    """Return the parts of a summary of kind `concise` or `detailed`; none for another kind."""
    paragraphs = [part for paragraph in PARAGRAPH_END.split(text) if (part := paragraph.strip())]
    match kind:
        case "concise":
            return list(map(_first_sentence, paragraphs))
        case "detailed":
            return paragraphs
    return []


def _first_sentence(paragraph: str) -> str:
    for end in SENTENCE_END.finditer(paragraph):
        if len(paragraph[: end.end()].split()) >= MIN_WORDS or not end[0].isascii():
            return paragraph[: end.end()].rstrip()
    return paragraph
