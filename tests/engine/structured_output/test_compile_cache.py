"""What was made is kept, and can be had while something else is being made."""

import gc
import weakref
from contextlib import suppress

import pytest

from engine.structured_output.compile_cache import ENTRY, CompileCache


def nothing(key: object, made: object) -> int:
    return 0


@pytest.mark.parametrize(
    ("asked", "known"),
    [
        ([2, 4], [2, 4]),
        ([2, 4, 2, 3], [2, 3]),
        ([2, 4, 3], [4, 3]),
        ([2, 4, 30], [30]),
        ([30, 2], [2]),
        ([0] * 20 + [2, 4], [0, 2, 4]),
    ],
)
def test_memory_drops_the_oldest_results_beyond_its_bytes(asked: list[int], known: list[int]) -> None:
    memory: CompileCache[int, bytes] = CompileCache(
        lambda kilobytes: bytes(1000 * kilobytes), ValueError, lambda _, made: len(made or b""), 9 * ENTRY
    )
    for key in asked:
        memory(key)
    assert [key for key in dict.fromkeys(asked) if memory.get(key) is not None] == sorted(known, key=asked.index)


def test_the_last_results_are_kept_and_refusals_too() -> None:
    made: list[int] = []

    def half(number: int) -> int:
        made.append(number)
        if number % 2:
            raise ValueError(f"{number} is odd")
        return number // 2

    memory = CompileCache(half, ValueError, nothing, 2 * ENTRY)
    assert (memory.get(4), memory(4), memory.get(4), memory(4)) == (None, 2, 2, 2)
    for ask in (memory, memory, memory.get):
        with pytest.raises(ValueError, match="3 is odd") as refused:
            ask(3)
        assert len(refused.traceback) < 5
    assert (memory(4), memory(6), memory.get(3), memory.get(4)) == (2, 3, None, 2)
    assert made == [4, 3, 6]


def test_what_is_known_is_had_while_something_else_is_made() -> None:
    def longer(text: str) -> str:
        return text + (memory.get("a") or ".")

    memory: CompileCache[str, str] = CompileCache(longer, ValueError, nothing, 2 * ENTRY)
    assert [memory("a"), memory("b")] == ["a.", "ba."]


def test_of_a_refusal_nothing_is_kept_but_what_it_says() -> None:
    class Body:
        """Of a request, megabytes."""

    bodies: list[weakref.ref[Body]] = []

    def refuse(_: int) -> int:
        body = Body()
        bodies.append(weakref.ref(body))
        raise ValueError

    memory = CompileCache(refuse, ValueError, nothing, 2 * ENTRY)
    with suppress(ValueError):
        memory(1)
    gc.collect()
    assert bodies[0]() is None
