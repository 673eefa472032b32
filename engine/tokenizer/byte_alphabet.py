"""GPT-2's byte alphabet: one printable letter for each of the 256 bytes.

Byte-level BPE vocabularies are text files, so they spell the bytes of a token in letters. A printable Latin-1 byte is
its own letter; all others (controls, space, soft hyphen...) are the letters from U+0100 on, in byte order. A space is
`Ġ` and a newline `Ċ`. GPT-2's name for this table is `bytes_to_unicode`:
https://github.com/openai/gpt-2/blob/master/src/encoder.py
"""

_PRINTABLE = (*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1))
_UNPRINTABLE = tuple(byte for byte in range(256) if byte not in _PRINTABLE)

BYTE_TO_UNICODE: dict[int, str] = {
    byte: chr(byte) if byte in _PRINTABLE else chr(0x100 + _UNPRINTABLE.index(byte)) for byte in range(256)
}
UNICODE_TO_BYTE: dict[str, int] = {letter: byte for byte, letter in BYTE_TO_UNICODE.items()}
