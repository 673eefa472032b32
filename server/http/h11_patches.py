"""Linear replacements for patterns of h11 that take quadratic time."""

import logging
import re
from functools import cache

import h11
import h11._abnf
import h11._readers
import h11._version

TESTED = "0.16."
"""Beginning of the h11 versions whose private patterns are known; pyproject.toml allows no others."""

log = logging.getLogger("responsed.http")


@cache
def apply() -> None:
    """Make h11's patterns for header fields and chunk headers possessive, once a process.

    h11 0.16 tries every division of a run of blanks: a line of 60 kB of blanks, followed by a byte that the pattern
    does not allow, stops the event loop for ten seconds. A possessive pattern matches the run without backtracking.
    Other releases of h11 stay unpatched, with a warning.
    """
    if not h11._version.__version__.startswith(TESTED):
        log.warning(
            "h11 %s is not patched against slow header lines; install h11 %s*", h11._version.__version__, TESTED
        )
        return
    h11._readers.header_field_re = re.compile(h11._abnf.header_field.replace(r":[ \t]*", r":[ \t]*+").encode())
    h11._readers.chunk_header_re = re.compile(h11._abnf.chunk_header.replace(r";.*", r";[^\r\n]*+").encode())
