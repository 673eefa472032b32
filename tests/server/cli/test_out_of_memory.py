"""Lack of memory inside a running server: the request is refused, or the process ends; nothing waits for ever."""

import subprocess
import sys

import pytest

from server.generation.failures import as_api_error
from tests.support.processes import ROOT


def test_request_without_memory_is_refused_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    error = as_api_error(MemoryError(), "req_1")
    assert (error.status, error.reason) == (503, "out_of_memory")
    assert [record.exc_info for record in caplog.records] == [None]


HOOK = """
import sys
from server.cli import running

class Unfinished:
    def __del__(self):
        raise {error}

sys.unraisablehook = running.end_without_memory
Unfinished()
"""
"""Python reports an exception of a thread's beginning as it does one of `__del__`."""


@pytest.mark.slow
@pytest.mark.parametrize(("error", "status"), [("MemoryError", 4), ("ValueError", 0)])
def test_thread_that_cannot_begin_for_lack_of_memory_ends_the_process(error: str, status: int) -> None:
    code = HOOK.format(error=error)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == status
    assert ("only a restart helps" in done.stderr) == (status == 4)
