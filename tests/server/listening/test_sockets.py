"""Listening sockets: addresses, unix sockets, and sockets from systemd."""

import http.client
import resource
import socket
import stat
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from server.listening.sockets import INHERITED_OPTIONS, BindError, ExposedAddress, listening_sockets
from tests.support import model_files
from tests.support.processes import COMMAND, ROOT, START_SECONDS, serving


def test_connection_notices_a_client_that_vanishes() -> None:
    with listening_sockets(["127.0.0.1"], 0, {}) as listening:
        (listener,) = listening.sockets
        listener.listen()
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            options = [(level, option) for level, option, _ in INHERITED_OPTIONS]
            found = [(*each, accepted.getsockopt(*each)) for each in options]
    assert found == list(INHERITED_OPTIONS)


EXPOSED = [
    (["127.0.0.1"], False),
    (["127.8.9.1"], False),
    (["localhost"], False),
    (["0.0.0.0"], True),
    (["127.0.0.1", "0.0.0.0"], True),
    (["unix:{tmp}/s"], False),
    (["unix:{tmp}/s", "0.0.0.0"], True),
]


@pytest.mark.parametrize(("hosts", "exposed"), EXPOSED)
def test_exposure_is_an_address_that_other_machines_reach(hosts: list[str], exposed: bool, tmp_path: Path) -> None:
    hosts = [host.format(tmp=tmp_path) for host in hosts]
    with listening_sockets(hosts, 0, {}) as listening:
        if exposed:
            with pytest.raises(ExposedAddress, match=r"^0\.0\.0\.0 is reachable from other machines"):
                listening.check_exposure()
        else:
            listening.check_exposure()


ADDRESSES = [
    (["0.0.0.0", "::"], ["0.0.0.0", "::"]),
    (["::", "0.0.0.0"], ["::", "0.0.0.0"]),
    (["127.0.0.1", "::1"], ["127.0.0.1", "::1"]),
    (["::"], ["::"]),
]


@pytest.mark.parametrize(("hosts", "bound"), ADDRESSES)
def test_hosts_of_both_families_share_a_port(hosts: list[str], bound: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with listening_sockets(hosts, port, {}) as listening:
        for each in listening.sockets:
            each.listen()
        assert [each.getsockname()[:2] for each in listening.sockets] == [(host, port) for host in bound]
        with socket.create_connection(("127.0.0.1", port)):
            pass  # `::` alone is all of IPv4 too


def test_unix_socket_is_private_to_owner_and_group_and_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with listening_sockets([f"unix:{path}"], 0, {}):
        assert (stat.S_ISSOCK(path.stat().st_mode), stat.S_IMODE(path.stat().st_mode)) == (True, 0o660)
    assert not path.exists()


def test_unix_socket_of_a_killed_server_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    with listening_sockets([f"unix:{path}"], 0, {}) as listening:
        listening.sockets[0].listen()
        with pytest.raises(BindError, match=f"^cannot listen on unix:{path}: Address already in use$"):
            listening_sockets([f"unix:{path}"], 0, {})
        assert path.exists()


def test_file_at_the_path_of_a_unix_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(BindError, match="Address already in use"):
        listening_sockets(["127.0.0.1", f"unix:{path}"], 0, {})
    assert path.read_text() == "precious"


def get(connection: http.client.HTTPConnection) -> int:
    connection.request("GET", "/health")
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.slow
def test_server_listens_at_several_addresses(tmp_path: Path) -> None:
    model = model_files.spm(tmp_path / "model.gguf")
    path = tmp_path / "socket"
    with serving(tmp_path, "--model", str(model), "--host", f"unix:{path}", "--host", "127.0.0.1") as daemon:
        assert get(daemon.connection()) == 200
        over_unix = http.client.HTTPConnection("localhost")
        over_unix.sock = socket.socket(socket.AF_UNIX)
        over_unix.sock.connect(str(path))
        assert get(over_unix) == 200
        daemon.process.terminate()
        assert daemon.wait() == 0
    assert not path.exists()


BUSY = b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"


@pytest.mark.slow
def test_server_without_file_descriptors_answers_health_and_logs_one_line(tmp_path: Path) -> None:
    model = model_files.spm(tmp_path / "model.gguf")
    with serving(tmp_path, "--model", str(model)) as daemon, ExitStack() as stack:
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (100, 100))
        for _ in range(90):
            stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port))).sendall(BUSY)
        assert [get(daemon.connection()) for _ in range(3)] == [200] * 3
        stack.close()
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (5, 100))
        waiting = [daemon.connection() for _ in range(3)]
        for connection in waiting:
            connection.connect()
        while b"trio.serve_listeners" not in daemon.log.read_bytes():
            time.sleep(0.01)
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (100, 100))
        assert [get(connection) for connection in waiting] == [200] * 3
        log = daemon.log.read_text()
    assert (log.count("too many are open"), log.count("trio.serve_listeners"), log.count("Traceback")) == (1, 1, 0)


RUN = """
import os, sys
os.environ["LISTEN_PID"], os.environ["LISTEN_FDS"] = str(os.getpid()), "1"
os.dup2(int(sys.argv[1]), 3)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def activated(listener: socket.socket, folder: Path, *flags: str) -> subprocess.Popen[bytes]:
    """Start a server that inherits the socket, as systemd starts it."""
    arguments = [*COMMAND[1:], "serve", "--state-dir", str(folder / "state"), *flags]
    command = [sys.executable, "-c", RUN, str(listener.fileno()), *arguments]
    return subprocess.Popen(command, cwd=ROOT, pass_fds=[listener.fileno()], stderr=subprocess.PIPE)


@pytest.mark.slow
def test_restart_with_an_inherited_socket_refuses_no_connection(tmp_path: Path) -> None:
    model = model_files.spm(tmp_path / "model.gguf")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        statuses = []
        for end in ("terminate", "kill"):
            with activated(listener, tmp_path, "--model", str(model)) as process:
                for _ in range(5):
                    statuses.append(get(http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)))
                getattr(process, end)()
                waiting = http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
                waiting.connect()  # while no server runs
                process.wait(START_SECONDS)
            waiting.close()
    assert statuses == [200] * 10


@pytest.mark.slow
def test_inherited_socket_that_is_exposed_needs_keys(tmp_path: Path) -> None:
    model = model_files.spm(tmp_path / "model.gguf")
    with (
        socket.create_server(("0.0.0.0", 0)) as listener,
        activated(listener, tmp_path, "--model", str(model)) as process,
    ):
        assert process.wait(START_SECONDS) == 6
        assert process.stderr is not None
        assert b"0.0.0.0 is reachable from other machines" in process.stderr.read()


@pytest.mark.parametrize("pid", ["", "1", "x"])
def test_sockets_for_another_process_are_not_inherited(pid: str) -> None:
    with listening_sockets(["127.0.0.1"], 0, {"LISTEN_PID": pid, "LISTEN_FDS": "1"}) as listening:
        assert listening.port


@pytest.mark.slow
def test_inherited_descriptor_that_is_no_stream_socket_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        process = activated(datagrams, tmp_path, "--model", "none")
        _, error = process.communicate(timeout=START_SECONDS)
    assert process.returncode == 5
    assert error.endswith(b"descriptor 3 from systemd is not a stream socket: use ListenStream= in the unit\n")
