"""The share of time in which tasks wait for a core, by the kernel's pressure figures.

https://docs.kernel.org/accounting/psi.html
"""

from pathlib import Path

READ_SECONDS = 0.05
"""Minimum seconds between two reads."""


class CpuPressure:
    """Reads the file at most every `READ_SECONDS`."""

    def __init__(self, file: Path = Path("/proc/pressure/cpu")) -> None:
        self._file = file
        self._read_at: float | None = None
        self._total = 0.0
        self._share = 0.0

    def share(self, now: float) -> float:
        """Return the share between the last two reads; 0 if the kernel has no such figure."""
        if self._read_at is None:
            self._read_at, self._total = now, self._waited()
        elif (elapsed := now - self._read_at) >= READ_SECONDS:
            total = self._waited()
            self._share = min(max(total - self._total, 0.0) / elapsed, 1.0)
            self._read_at, self._total = now, total
        return self._share

    def _waited(self) -> float:
        """Return the seconds since the start of the machine in which some task waited."""
        try:
            words = self._file.read_text().split()
        except OSError:
            return 0.0  # the kernel has no pressure figures, or they are switched off
        total = next((word for word in words if word.startswith("total=")), "")
        return int(total.removeprefix("total=") or 0) / 1e6
