"""The cache keeps results and errors, drops the oldest, and can be read while it computes."""

import gc
import weakref
from contextlib import suppress

import pytest

from engine.structured_output.compile_cache import ENTRY_BYTES, CompileCache


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
def test_compile_cache_beyond_max_bytes_drops_least_recently_used_results(asked: list[int], known: list[int]) -> None:
    cache: CompileCache[int, bytes] = CompileCache(
        lambda kilobytes: bytes(1000 * kilobytes), ValueError, lambda _, made: len(made or b""), 9 * ENTRY_BYTES
    )
    for key in asked:
        cache(key)
    assert [key for key in dict.fromkeys(asked) if cache.get(key) is not None] == sorted(known, key=asked.index)


def test_compile_cache_returns_last_results_and_raises_last_errors_again() -> None:
    made: list[int] = []

    def half(number: int) -> int:
        made.append(number)
        if number % 2:
            raise ValueError(f"{number} is odd")
        return number // 2

    cache = CompileCache(half, ValueError, nothing, 2 * ENTRY_BYTES)
    assert (cache.get(4), cache(4), cache.get(4), cache(4)) == (None, 2, 2, 2)
    for ask in (cache, cache, cache.get):
        with pytest.raises(ValueError, match="3 is odd") as caught:
            ask(3)
        assert len(caught.traceback) < 5
    assert (cache(4), cache(6), cache.get(3), cache.get(4)) == (2, 3, None, 2)
    assert made == [4, 3, 6]


def test_compile_cache_get_while_another_key_is_computed_returns_result() -> None:
    def longer(text: str) -> str:
        return text + (cache.get("a") or ".")

    cache: CompileCache[str, str] = CompileCache(longer, ValueError, nothing, 2 * ENTRY_BYTES)
    assert [cache("a"), cache("b")] == ["a.", "ba."]


@pytest.mark.slow
def test_compile_cache_of_error_keeps_no_reference_to_its_frames() -> None:
    class Body:
        """Body of a request, which may have megabytes."""

    bodies: list[weakref.ref[Body]] = []

    def fail(_: int) -> int:
        body = Body()
        bodies.append(weakref.ref(body))
        raise ValueError

    cache = CompileCache(fail, ValueError, nothing, 2 * ENTRY_BYTES)
    with suppress(ValueError):
        cache(1)
    gc.collect()
    assert bodies[0]() is None
