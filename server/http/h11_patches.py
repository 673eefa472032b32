"""Patterns of h11 that take quadratic time, made linear."""

import logging
import re
from functools import cache

import h11
import h11._abnf
import h11._readers
import h11._version

TESTED = "0.16."
"""h11's releases whose private patterns are known; pyproject.toml allows no others."""

log = logging.getLogger("responsed.http")


@cache
def apply() -> None:
    """Make h11's patterns for header fields and chunk headers possessive, once a process.

    h11 0.16 tries all ways to divide a run of blanks: one line with 60 kB of them, and a byte behind it that the
    pattern does not allow, stops the event loop for ten seconds. A possessive pattern takes the run and never gives it
    back. Another release of h11 is left as it is, with a warning.
    """
    if not h11._version.__version__.startswith(TESTED):
        log.warning(
            "h11 %s is not patched against slow header lines: install h11 %s*", h11._version.__version__, TESTED
        )
        return
    h11._readers.header_field_re = re.compile(h11._abnf.header_field.replace(r":[ \t]*", r":[ \t]*+").encode())
    h11._readers.chunk_header_re = re.compile(h11._abnf.chunk_header.replace(r";.*", r";[^\r\n]*+").encode())
