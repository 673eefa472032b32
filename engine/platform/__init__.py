"""The operating system: CPU, memory, dynamic linker, complete files. Imports nothing of ours."""

from engine.platform.atomic_write import atomic_write
from engine.platform.cpu import CPUINFO, instruction_sets
from engine.platform.linking import explain_load_error
from engine.platform.zero_pages import release_zero_pages

__all__ = ["CPUINFO", "atomic_write", "explain_load_error", "instruction_sets", "release_zero_pages"]
