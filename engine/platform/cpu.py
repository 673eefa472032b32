"""Instruction sets of the CPU, by the kernel's names."""

import re
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def instruction_sets(cpuinfo: Path = CPUINFO) -> frozenset[str]:
    """Return the names; none if the kernel does not show them (systemd's `ProcSubset=pid` hides the file)."""
    try:
        text = cpuinfo.read_text(errors="replace")
    except OSError:
        return frozenset()
    # The line is "flags" on x86 and "Features" on Arm; the first core represents all.
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return frozenset(line[1].split()) if line else frozenset()
