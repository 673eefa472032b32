"""Format of the log on stderr: text or JSON, with level prefixes under systemd and times elsewhere."""

import logging
import os
import sys
import time
from collections.abc import Mapping
from typing import TextIO

import msgspec

_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
"""Level -> syslog priority (sd-daemon(3))."""


def configure_logs(level: str, kind: str) -> None:
    """Send the log to stderr, as text or JSON, by `kind`."""
    logging.basicConfig(handlers=[make_handler(kind)], level=level.upper())
    logging.getLogger("mcp").setLevel(logging.CRITICAL)  # its lines have content of answers
    if level != "debug":
        logging.getLogger("httpx2").setLevel(logging.WARNING)  # it has a line for each request to an MCP server


def make_handler(
    kind: str, environ: Mapping[str, str] = os.environ, stream: TextIO | None = None
) -> logging.StreamHandler[TextIO]:
    """Return a handler that writes to `stream`; stderr if it is None."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    if kind == "json":
        handler.setFormatter(JSONFormatter())
    elif _is_journal(environ, stream):
        handler.setFormatter(JournalFormatter("%(name)s: %(message)s"))
    else:
        handler.setFormatter(TimeFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    return handler


class TimeFormatter(logging.Formatter):
    """Begins each record with the time in UTC (RFC 3339)."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03}Z"


class JournalFormatter(logging.Formatter):
    """Begins each line with its priority; the journal has the time (sd-daemon(3))."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_PRIORITIES.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


class JSONFormatter(logging.Formatter):
    """Writes each record as one JSON object; the summary of an answer has its own fields."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": record.created,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        if (summary := getattr(record, "summary", None)) is not None:
            fields["answer"] = summary.fields()
        return msgspec.json.encode(fields).decode()


def _is_journal(environ: Mapping[str, str], stream: TextIO) -> bool:
    """Return True if the stream is connected to the journal (systemd.exec(5), $JOURNAL_STREAM)."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))
