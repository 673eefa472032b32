"""The check of the number of threads, in a process that may not start many."""

import os
import subprocess
import sys

import pytest

from engine.loader import thread_check
from tests.support.processes import ROOT

PROGRAM = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NPROC, ({limit}, {limit}))
from engine.loader import thread_check
os.setresuid(61234, 61234, 61234)  # no limit holds for root
try:
    thread_check.check(2)
except OSError as error:
    print(error)
"""


def test_check_of_few_threads_leaves_none_behind() -> None:
    thread_check.check(2)


@pytest.mark.slow
@pytest.mark.skipif("os.getuid() != 0", reason="only root can become a user without other processes")
@pytest.mark.parametrize(("limit", "started"), [(1, "0 threads"), (2, "1 thread"), (7, "6 threads"), (8, None)])
def test_check_of_more_threads_than_the_user_may_have_raises(limit: int, started: str | None) -> None:
    code = PROGRAM.format(limit=limit)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},  # numpy starts a thread for each core
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    message = (
        f"this process may start {started}, and needs 7: allow this user more processes "
        "(`ulimit -u`; TasksMax= of a systemd unit, pids.max of a container)\n"
    )
    assert done.stdout == ("" if started is None else message)
