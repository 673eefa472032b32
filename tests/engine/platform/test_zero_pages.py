"""`release_zero_pages` changes no memory, and makes cleared memory free.

Each test runs in a process of its own, since no other thread may write meanwhile.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SIZE = 40 << 20
BEGIN = f"""
import ctypes, mmap, random
from pathlib import Path
from engine.platform.zero_pages import CHUNK_BYTES, release_zero_pages
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
def mapped(flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS):
    return mmap.mmap(-1, {SIZE}, flags=flags)
"""


def printed(code: str) -> str:
    return subprocess.run([sys.executable, "-c", BEGIN + code], capture_output=True, text=True, check=True).stdout


def test_cleared_memory_is_released_and_used_memory_is_unchanged() -> None:
    code = f"""
memory, unused, places = mapped(), mapped(), random.Random(1).sample(range({SIZE}), 20)
memory.write(bytes({SIZE}))
for place in places:
    memory[place] = 7
before = resident()
released = release_zero_pages()
freed = before - resident()
print(released >= {SIZE} - (20 + 2) * CHUNK_BYTES, abs(freed - released) < 1 << 20)
expected = bytearray({SIZE})
for place in places:
    expected[place] = 7
print(memory[:] == expected, unused[:] == bytes({SIZE}))
memory[5] = 9
print(memory[5])
"""
    assert printed(code) == "True True\nTrue True\n9\n"


def test_memory_that_was_never_used_stays_as_it_is() -> None:
    code = "unused = mapped()\nbefore = resident()\nprint(release_zero_pages(), resident() - before < 1 << 20)"
    assert printed(code) == "0 True\n"


def test_memory_that_other_processes_see_is_left_alone() -> None:
    code = f"shared = mapped(mmap.MAP_SHARED)\nshared.write(bytes({SIZE}))\nprint(release_zero_pages())"
    assert printed(code) == "0\n"


def test_mapped_files_with_any_bytes_in_their_names_do_no_harm(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/m\xff \r\x0b\n.gguf"
    code = f"""
path = {path!r}
with open(path, "wb+") as file:
    file.write(b"x")
    file.flush()
    model = mmap.mmap(file.fileno(), 1, flags=mmap.MAP_PRIVATE)
memory = mapped()
memory.write(bytes({SIZE}))
print(b"m\\xff" in Path("/proc/self/maps").read_bytes(), release_zero_pages() > 0)
"""
    assert printed(code) == "True True\n"
