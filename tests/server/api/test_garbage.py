"""An answered request is freed at once. The garbage collector would free it late, and run between two tokens."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio.testing

from tests.support.helpers import encode, exchange, served

pytestmark = pytest.mark.slow

FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}
CHAT = {"messages": [{"role": "user", "content": "Hi"}]}
REQUESTS: dict[str, tuple[str, str, dict[str, Any] | None]] = {
    "whole": ("POST", "/v1/responses", {"input": "Hi"}),
    "stream": ("POST", "/v1/responses", {"input": "Hi", "stream": True}),
    "background": ("POST", "/v1/responses", {"input": "Hi", "background": True}),
    "JSON": ("POST", "/v1/responses", {"input": "Hi", "text": {"format": {"type": "json_object"}}}),
    "tools": ("POST", "/v1/responses", {"input": "Hi", "tools": [FUNCTION]}),
    "invalid": ("POST", "/v1/responses", {"input": 5}),
    "chat": ("POST", "/v1/chat/completions", CHAT),
    "chat stream": ("POST", "/v1/chat/completions", CHAT | {"stream": True}),
    "input tokens": ("POST", "/v1/responses/input_tokens", {"input": "Hi"}),
    "conversation": ("POST", "/v1/conversations", {}),
    "models": ("GET", "/v1/models", None),
    "unknown response": ("GET", "/v1/responses/resp_0", None),
    "unknown path": ("GET", "/v1/nothing", None),
}


@contextmanager
def garbage() -> Iterator[list[Any]]:
    """Fill the list with the objects of ours that only the collector frees, at the end of the block."""
    found: list[Any] = []
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found += [each for each in gc.garbage if type(each).__module__.startswith(("engine.", "server."))]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize("settings", [{}, {"answer_timeout_seconds": 0.0}], ids=["completed", "failed"])
async def test_answered_requests_leave_no_garbage(tmp_path: Path, settings: dict[str, Any]) -> None:
    left = {}
    async with served(state=tmp_path, **settings) as running:
        for method, path, body in REQUESTS.values():  # what is made once may stay
            await exchange(running, method, path, None if body is None else encode(**body))
        gc.collect()
        gc.freeze()
        try:
            for name, (method, path, body) in REQUESTS.items():
                with garbage() as found:
                    await exchange(running, method, path, None if body is None else encode(**body))
                    await trio.testing.wait_all_tasks_blocked(0.05)
                if found:
                    left[name] = sorted({type(each).__qualname__ for each in found})
        finally:
            gc.unfreeze()
    assert left == {}
