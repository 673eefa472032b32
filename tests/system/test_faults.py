"""Signals in every state of the daemon, and crashes under load: how the process ends, and what it leaves."""

import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import trio

from tests.server.listening.test_sockets import activated
from tests.support import wire
from tests.support.helpers import NAME, PATIENCE, Client, PacedModel, get, post, served, text
from tests.support.processes import COMMAND, ROOT, START_SECONDS, serving

pytestmark = pytest.mark.slow

TERMINATED = -signal.SIGTERM
ENDLESS = 100_000
"""Context of a tiny model, in tokens: it takes a minute to fill."""
EXITED = 128 + signal.SIGTERM
"""Exit status of a Python program that SIGTERM ended while it could still clean up."""


class Starting:
    """A process that may not get ready, its log, and its messages to systemd."""

    def __init__(self, folder: Path, *flags: str, **variables: str) -> None:
        self.folder = folder
        self.log = folder / "log"
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._channel.bind(str(folder / "notify"))
        self._channel.settimeout(START_SECONDS)
        environ = os.environ | {"NOTIFY_SOCKET": str(folder / "notify")}
        command = [*COMMAND, "serve", "--port", "0", "--state-dir", str(folder / "state"), *flags]
        with self.log.open("wb") as stderr:
            self.process = subprocess.Popen(command, cwd=ROOT, stderr=stderr, env=environ | variables)

    def __enter__(self) -> "Starting":
        return self

    def __exit__(self, *failure: object) -> None:
        self.process.kill()
        self.process.wait()
        self._channel.close()

    def wait_message(self, part: str) -> str:
        while part not in (message := self._channel.recv(4096).decode()):
            pass
        return message

    def wait_log(self, part: str) -> None:
        wait_until(lambda: part in self.log.read_text())

    def child(self) -> int:
        """Wait for a child process and return its number."""
        file = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        wait_until(lambda: bool(file.read_text().split()))
        return int(file.read_text().split()[0])


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.002)


State: TypeAlias = Callable[[Path, Path, Path], Iterator[Starting]]


def pulling(folder: Path, smollm2: Path, tiny: Path) -> Iterator[Starting]:
    """An index that accepts pip's connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as index:
        index.settimeout(START_SECONDS)
        url = f"http://127.0.0.1:{index.getsockname()[1]}/simple"
        variables = {
            "PIP_INDEX_URL": url,
            "PIP_EXTRA_INDEX_URL": "",
            "PIP_FIND_LINKS": "",
            "PIP_CONFIG_FILE": "/dev/null",
            "XDG_CACHE_HOME": str(folder / "cache"),
        }
        with Starting(folder, **variables) as starting:
            starting.wait_message("STATUS=pulling smollm2: 0 %")
            pip, _ = index.accept()
            with pip:
                pip.settimeout(START_SECONDS)
                yield starting
                while pip.recv(4096):  # its request, and then its end
                    pass
    assert [each.name for each in (folder / "cache/responsed/models").iterdir()] == [".lock"]


def probing(folder: Path, smollm2: Path, tiny: Path) -> Iterator[Starting]:
    """A child that stands still while its parent is ended."""
    with Starting(folder, "--model", str(smollm2), XDG_CACHE_HOME=str(folder / "cache")) as starting:
        child = starting.child()
        os.kill(child, signal.SIGSTOP)
        yield starting
        os.kill(child, signal.SIGCONT)
        wait_until(
            lambda: not Path(f"/proc/{child}/cmdline").exists() or not Path(f"/proc/{child}/cmdline").read_bytes()
        )


def loading(folder: Path, smollm2: Path, tiny: Path) -> Iterator[Starting]:
    with Starting(folder, "--model", str(smollm2)) as starting:
        starting.wait_log(" memory: ")
        yield starting


def prewarming(folder: Path, smollm2: Path, tiny: Path) -> Iterator[Starting]:
    (folder / "prompt.txt").write_text("The sea is wide. " * 1500)
    with Starting(folder, "--model", str(smollm2), "--prewarm", str(folder / "prompt.txt")) as starting:
        starting.wait_message("STATUS=evaluating the first prompts")
        yield starting


def ready(folder: Path, smollm2: Path, tiny: Path) -> Iterator[Starting]:
    with Starting(folder, "--model", str(tiny)) as starting:
        starting.wait_message("READY=1")
        yield starting
        assert starting.wait_message("STOPPING=1") == "STOPPING=1\nSTATUS=waiting for streams to end"


def reloading(folder: Path, smollm2: Path, tiny: Path) -> Iterator[Starting]:
    for starting in ready(folder, smollm2, tiny):
        starting.process.send_signal(signal.SIGHUP)
        starting.wait_message("RELOADING=1")
        yield starting
        starting.wait_log("reloaded the settings and API keys")


def closing(folder: Path, smollm2: Path, tiny: Path) -> Iterator[Starting]:
    """A first SIGTERM, and a stream that never ends."""
    flags = ["--model", str(tiny), "--context", str(ENDLESS), "--shutdown-timeout", "600"]
    with Starting(folder, *flags) as starting:
        port = int(starting.wait_message("READY=1").rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(ask(input="Write a long story about the sea.", stream=True, temperature=0))
            client.recv(1)
            starting.process.terminate()
            starting.wait_message("STOPPING=1")
            yield starting


def ask(**fields: Any) -> bytes:
    body = json.dumps(fields).encode()
    head = "POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
    return f"{head}{len(body)}\r\n\r\n".encode() + body


STATES: list[tuple[State, int]] = [
    (pulling, EXITED),
    (probing, TERMINATED),
    (loading, TERMINATED),
    (prewarming, TERMINATED),
    (ready, 0),
    (reloading, 0),
    (closing, TERMINATED),
]


@pytest.mark.parametrize(("state", "status"), STATES, ids=[state.__name__ for state, _ in STATES])
def test_sigterm_ends_the_process_in_every_state(
    state: State, status: int, smollm2: Path, tiny: Path, tmp_path: Path
) -> None:
    for starting in state(tmp_path, smollm2, tiny):
        starting.process.terminate()
        assert starting.process.wait(PATIENCE) == status
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_sigint_ends_the_process_while_a_large_model_loads(smollm2: Path, tiny: Path, tmp_path: Path) -> None:
    for starting in loading(tmp_path, smollm2, tiny):
        starting.process.send_signal(signal.SIGINT)
        assert starting.process.wait(PATIENCE) == -signal.SIGINT
    assert "Traceback" not in (tmp_path / "log").read_text()


async def test_sigterm_ends_every_stream_also_of_stuck_readers(tmp_path: Path) -> None:
    """Two readers get stuck: one reads on after the signal, the other never does. A third request waits for a slot."""
    model = PacedModel(lambda message: message * 4000, n_slots=2, n_ctx=8192)
    model_output = 3000
    async with served(model, state=tmp_path, shutdown_timeout_seconds=0.3) as running:
        model.hold()
        async with (
            await stuck(running.port) as late,
            await stuck(running.port) as never,
            await Client.to(running) as queued,
        ):
            await late.create(input="a", stream=True)
            await never.create(input="b", stream=True)
            model.allow(model_output)
            await model.wait_begun(model_output)
            await queued.create(input="c")
            while not running.app.waiting:
                await trio.lowlevel.checkpoint()
            signal.raise_signal(signal.SIGTERM)
            refusal = await queued.answer()
            assert (refusal.status, refusal.headers["retry-after"]) == (503, "1")
            assert refusal.json["error"]["message"] == "The server is shutting down; try again later."
            await late.head()
            events = wire.events(await late.rest_of_stream())
            with trio.fail_after(PATIENCE):
                await running.app.wait_idle()
            never_id = json.loads(re.findall(rb"data: (.*)\r?\n", await never.rest())[0])["response"]["id"]
        model.go()
    assert [event["type"] for event in events[-2:]] == ["error", "response.failed"]
    late_response = events[-1]["response"]
    async with served(state=tmp_path) as running:
        for response_id, letter in ((late_response["id"], "a"), (never_id, "b")):
            found = (await get(running, f"/v1/responses/{response_id}")).json
            assert found["status"] == "failed"
            assert found["error"]["message"] == "The server is shutting down; try again later."
            assert set(text(found)) == {letter}
            assert found["usage"]["output_tokens"] >= len(text(found)) > 1000
            assert response_id != late_response["id"] or found == late_response


async def stuck(port: int) -> Client:
    """Return a client whose socket has room for little of an answer."""
    connection = trio.socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    await connection.connect(("127.0.0.1", port))
    return Client(trio.SocketStream(connection))


async def in_store(folder: Path, response_id: str) -> None:
    """Wait until an unfinished response is stored, which happens beside its generation."""
    with contextlib.closing(sqlite3.connect(folder / "state" / "responses.db")) as database, trio.fail_after(PATIENCE):
        while not database.execute("SELECT 1 FROM entries WHERE id = ?", (response_id,)).fetchone():  # noqa: ASYNC110
            await trio.sleep(0.01)


RESTARTED = (signal.SIGSEGV, signal.SIGKILL)
"""A signal with stacks and one without, after which the next start is tested too."""
CRASHES = [
    (signal.SIGSEGV, "Fatal Python error: Segmentation fault"),
    (signal.SIGABRT, "Fatal Python error: Aborted"),
    (signal.SIGBUS, "Fatal Python error: Bus error"),
    (signal.SIGKILL, ""),
]


@pytest.mark.parametrize(("number", "line"), CRASHES, ids=[number.name for number, _ in CRASHES])
async def test_crash_under_load_leaves_its_stacks_and_no_response_in_progress(
    number: signal.Signals, line: str, tiny: Path, tmp_path: Path
) -> None:
    flags = ("--model", str(tiny), "--context", str(ENDLESS), "--max-output-tokens", "0", "--alias", NAME)
    with serving(tmp_path, *flags) as daemon:
        whole = (await post(daemon, input="Hi", max_output_tokens=4)).json
        async with await Client.to(daemon) as client:
            await client.create(input="Write a long story.", stream=True, temperature=0)
            cut_id, _ = await client.created()
            await in_store(tmp_path, cut_id)
            daemon.process.send_signal(number)
            status = daemon.wait()
            ended = daemon.process.pid
    log = daemon.log.read_text()
    # Reading the stack of a running thread may crash too: https://github.com/python/cpython/issues/116008
    assert status == -(signal.SIGSEGV if CRASHES[0][1] in log else number)
    assert line in log
    assert ("most recent call first" in log) == bool(line)
    if number not in RESTARTED:
        return
    (tmp_path / "notify").unlink()
    with serving(tmp_path, *flags) as daemon:
        assert "probes" not in daemon.log.read_text(), "the next start is quick"
        assert "1 unfinished response failed" in daemon.log.read_text()
        assert f"process {ended}, since" in daemon.log.read_text()
        assert "ended abnormally" in daemon.log.read_text()
        assert (await get(daemon, f"/v1/responses/{whole['id']}")).json == whole
        assert (await get(daemon, f"/v1/responses/{cut_id}")).json["status"] == "failed"


@contextlib.contextmanager
def memory_cgroup() -> Iterator[Path]:
    """Make a control group that may use 8 MB, and yield its folder. Skip where the machine allows none."""
    version_1 = Path("/sys/fs/cgroup/memory")
    folder = (version_1 if version_1.is_dir() else Path("/sys/fs/cgroup")) / f"responsed-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made: {error.strerror}")
    try:
        limit = folder / ("memory.limit_in_bytes" if version_1.is_dir() else "memory.max")
        if not limit.exists():
            pytest.skip("control groups have no limits of memory here")
        limit.write_text("8000000")
        yield folder
    finally:
        folder.rmdir()


async def test_kernel_that_ends_a_server_out_of_memory_is_named_by_the_next_start(tiny: Path, tmp_path: Path) -> None:
    flags = ("--model", str(tiny), "--context", str(ENDLESS), "--max-output-tokens", "0", "--alias", NAME)
    with memory_cgroup() as group, serving(tmp_path, *flags) as daemon:
        async with await Client.to(daemon) as client, await Client.to(daemon) as other:
            await client.create(input="Write a long story.", stream=True, temperature=0)
            cut_id, _ = await client.created()
            await in_store(tmp_path, cut_id)
            (group / "cgroup.procs").write_text(str(daemon.process.pid))  # what it has taken stays with its old group
            with contextlib.suppress(trio.BrokenResourceError):
                await other.create(input="x" * 20_000_000)
            assert await trio.to_thread.run_sync(daemon.wait) == -signal.SIGKILL
            ended = daemon.process.pid
    (tmp_path / "notify").unlink()
    with serving(tmp_path, *flags) as daemon:
        (line,) = [each for each in daemon.log.read_text().splitlines() if "ended abnormally" in each]
        assert f"the last run (process {ended}, since " in line
        assert "ended abnormally: the kernel's OOM killer ended " in line
        assert "1 unfinished response failed" in daemon.log.read_text()
        assert (await get(daemon, f"/v1/responses/{cut_id}")).json["status"] == "failed"


class Hammer:
    """Clients that ask one short question after another, each on a connection of its own, and their outcomes."""

    def __init__(self, port: int, clients: int) -> None:
        self._port = port
        self.outcomes: Counter[str] = Counter()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> "Hammer":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def wait_answers(self, number: int) -> None:
        until = self.outcomes["200"] + number
        wait_until(lambda: self.outcomes["200"] >= until)

    def _ask(self) -> None:
        while not self._ended.is_set():
            self.outcomes[self._outcome()] += 1

    def _outcome(self) -> str:
        try:
            with socket.create_connection(("127.0.0.1", self._port), START_SECONDS) as client:
                client.sendall(ask(input="hello", max_output_tokens=4))
                return client.recv(100).split(b" ", 2)[1].decode()
        except (OSError, IndexError) as error:
            return type(error).__name__


def test_restarts_under_load_refuse_no_connection(tiny: Path, tmp_path: Path) -> None:
    """The listening socket is systemd's. SIGTERM costs no answer, SIGKILL those of the requests in progress."""
    clients = 8
    flags = ["--model", str(tiny), "--slots", "2", "--queue", "2"]
    lost: dict[str, set[str]] = {"SIGTERM": set(), "SIGKILL": set()}
    with (
        socket.create_server(("127.0.0.1", 0), backlog=128) as listener,
        Hammer(listener.getsockname()[1], clients) as hammer,
    ):
        for end in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
            with activated(listener, tmp_path, *flags) as process:
                hammer.wait_answers(20)
                before = hammer.outcomes.copy()
                process.send_signal(end)
                process.communicate(timeout=START_SECONDS)
            lost[end.name] |= (hammer.outcomes - before).keys() - {"200", "503"}
        with activated(listener, tmp_path, *flags) as process:
            hammer.wait_answers(20)
            hammer.stop()
            process.kill()
    assert lost["SIGTERM"] == set()
    assert lost["SIGKILL"] <= {"ConnectionResetError", "IndexError"}


async def test_state_is_private_to_its_owner(tiny: Path, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with serving(tmp_path, "--model", str(tiny), "--alias", NAME) as daemon:
            await post(daemon, input="hello", max_output_tokens=4)
            daemon.process.terminate()
            assert daemon.wait() == 0
    finally:
        os.umask(before)
    state = tmp_path / "state"
    modes = {path.relative_to(state).as_posix(): path.stat().st_mode & 0o777 for path in (state, *state.rglob("*"))}
    assert {"responses.db", "kv"} <= modes.keys()
    assert any(name.startswith("kv/") and name.endswith(".kv") for name in modes)
    assert {name: mode for name, mode in modes.items() if mode & 0o077} == {}
