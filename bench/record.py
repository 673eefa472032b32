"""One measured request with its times, as `--out` writes it: the only thing that figures are computed from.

Times are seconds since `start`, unless they are documented otherwise. A `Record` of another run, or of another bench
whose times were converted, gives the same figures.
"""

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(slots=True)
class Record:
    """A request and its answer."""

    target: int = 0
    """Index of the server: 0 for `--url`, 1 for `--vs`."""
    round: int = 0
    group: str = ""
    """Name of the group of records that are counted together, such as `all` or `2 at a time`."""
    start: float = 0.0
    """Seconds from the begin of the run to the first call of `connect` or `send`."""
    planned: float | None = None
    """Seconds from the begin of the run to the planned start (open loop); None in a closed loop."""
    first_byte: float | None = None
    deltas: list[float] = field(default_factory=list)
    """Times of the non-empty deltas of text; two in one read have one time."""
    end: float | None = None
    """Time of the terminal event; None if there was none."""
    asked_tokens: int | None = None
    """Maximum tokens of output that the request asked for."""
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    """Tokens of output by the server's usage; if it sends none, the number of deltas."""
    counted: bool = False
    """True if the server sent no usage, so that `output_tokens` counts deltas."""
    status: str = ""
    """`completed`, `incomplete`, `failed`; `dropped` if the client hung up; empty if nothing came."""
    error_kind: str = ""
    """`connect`, `send`, `closed`, `stall`, `protocol`, `failed`, `http 503`; empty for a success."""
    error: str = ""
    """Message of the error; empty for a success."""
    server_times: dict[str, Any] | None = None
    """The server's own times of this response (`--trace`); None without them."""
    text: str = field(default="", compare=False)
    """Text of the answer. Not written: it may be private, and no figure needs it."""

    def delay(self) -> float:
        """Return the seconds from the planned start to the real one; 0 in a closed loop."""
        return 0.0 if self.planned is None else self.start - self.planned

    def to_json(self) -> str:
        """Return one line of JSONL."""
        return json.dumps({name: value for name, value in asdict(self).items() if name != "text"})

    @classmethod
    def from_json(cls, line: str) -> "Record":
        """Return the record of a line; unknown fields, such as of a later version, are ignored."""
        known = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in json.loads(line).items() if name in known})
