"""File descriptors run out: the daemon says so once, and goes on answering."""

import resource
import socket
import time
from pathlib import Path

import pytest

from tests.support.processes import serving

pytestmark = pytest.mark.slow

LIMIT = 160
"""File descriptors of the daemon."""


def test_server_out_of_file_descriptors_logs_one_line_and_answers_health(tiny: Path, tmp_path: Path) -> None:
    with serving(tmp_path, "--model", str(tiny)) as daemon:
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
        idle = [socket.create_connection(("127.0.0.1", daemon.port)) for _ in range(2 * LIMIT)]
        time.sleep(1)
        try:
            for _ in range(3):
                connection = daemon.connection()
                connection.request("GET", "/health")
                assert connection.getresponse().status == 200
                connection.close()
        finally:
            for each in idle:
                each.close()
        log = daemon.log.read_text()
    assert "Traceback" not in log
    assert log.count("accept") <= 1
