"""The operating system: CPU, dynamic linker, complete files. Imports nothing of ours."""

from engine.platform.atomic_write import atomic_write
from engine.platform.cpu import CPUINFO, instruction_sets
from engine.platform.linking import explain_load_error

__all__ = ["CPUINFO", "atomic_write", "explain_load_error", "instruction_sets"]
