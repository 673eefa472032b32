"""Depth of JSON texts, found before a decoder descends into them. Pure."""

import re
from itertools import accumulate

CHUNK_BYTES = 1 << 14
"""Bytes per call into C: other threads wait no longer than it takes."""

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_END_OF_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+(")?', re.DOTALL)
_OTHER_BYTES = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def is_deeper(text: bytes, most: int) -> bool:
    """True if arrays and objects are nested deeper than `most` levels; brackets in strings do not count."""
    if text.count(b"[") + text.count(b"{") <= most:
        return False
    depth = at = 0
    while at < len(text):
        chunk = text[at : at + CHUNK_BYTES]
        at += len(chunk)
        outside, quote, rest = _STRING.sub(b"", chunk).partition(b'"')
        brackets = outside.translate(None, _OTHER_BYTES)
        depths = list(accumulate(map(_STEPS.__getitem__, brackets), initial=depth))
        if max(depths) > most:
            return True
        depth = depths[-1]
        if quote:  # the last string does not end in this chunk
            at = _after_string(text, at - len(rest))
    return False


def _after_string(text: bytes, at: int) -> int:
    """Return the place after the string whose content begins at `at`; the text's end if the string has none."""
    while at < len(text):
        match = _END_OF_STRING.match(text, at, at + CHUNK_BYTES)
        assert match is not None, "the pattern matches an empty text"
        if match[1]:
            return match.end()
        if match.end() >= len(text) - 1:
            return len(text)
        at = match.end()  # a backslash at the chunk's end stays for the next chunk
    return at
