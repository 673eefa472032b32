"""Probe a model file in a child process, which may crash in place of the server.

Two failures cannot be contained inside a process: native code that crashes on a file whose header passed the checks,
and a chat template that doubles a text until memory ends (minijinja's fuel does not limit bytes).
"""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.chat_template import TOO_MUCH
from engine.model import EngineFault, ModelError

TIMEOUT_SECONDS = 120
"""Seconds of a probe, besides the time to read the weights."""
MIN_READ_BYTES_PER_SECOND = 10_000_000
"""Bytes a second from a slow SD card: a large file must be read into memory first."""

CHILD_PROGRAM = (
    "import sys; end = sys.argv.index(''); sys.path[:] = sys.argv[1:end]; del sys.argv[1 : end + 1]; "
    "from engine.loader.probe_child import main; sys.exit(main())"
)
"""Program of the child. Its arguments: the import path, an empty text, and the arguments of `main`."""

PROBE_VERSION = 3
"""Version of the probe's checks: a file that passed an older version is probed again."""

log = logging.getLogger("responsed.engine")


class UnusableWeights(ModelError):
    """An engine refuses the weights of a file, or computes no numbers with them."""


def timeout(n_bytes: int) -> float:
    """Return the seconds that a child may take with weights of that size."""
    return TIMEOUT_SECONDS + n_bytes / MIN_READ_BYTES_PER_SECOND


def probe(
    path: Path, weights: Path, engine: str, libllama: Path | None, n_bytes: int = 0, chat_template: str = ""
) -> None:
    """Check the template in `path` and run a token through `weights` (the same file, or its rewritten copy).

    `n_bytes` is the size of the weights; `chat_template` (see `loader.Options`) replaces the file's own. Raises
    ModelError if the child reports an error or dies: UnusableWeights if it reports an error of the weights, EngineFault
    if the engine crashes on them; OSError if the child cannot be started.
    """
    log.info("%s probes %s for the first time, in its own process", engine, path.name)
    arguments = [str(path.absolute()), str(weights.absolute()), engine, chat_template]
    arguments += [str(libllama.absolute())] if libllama else []
    limit = timeout(n_bytes)
    try:
        done = _run_child(arguments, limit)
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"{path.name} was not ready after {limit:g} s; it cannot be served") from error
    except OSError as error:
        remedy = "allow this user more processes, memory and file descriptors"
        raise OSError(f"no process can be started to try {path.name} ({error.strerror}): {remedy}") from error
    if done.returncode != 0:
        raise _error(path.name, done)


def _run_child(arguments: Sequence[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """Run `probe_child.main` in a process that ends with this one. Raises TimeoutExpired."""
    command = [sys.executable, "-P", "-c", CHILD_PROGRAM, *_import_path(), "", *arguments]
    ends, lifeline = os.pipe()
    try:
        # The child runs in /: an import path or a library path may name the current folder.
        return subprocess.run(
            command, cwd="/", stdin=ends, capture_output=True, text=True, timeout=seconds, errors="replace"
        )
    finally:
        os.close(ends)
        os.close(lifeline)


def _error(name: str, done: subprocess.CompletedProcess[str]) -> ModelError:
    """Return the error of a child that has failed on the file `name`."""
    stage, _, message = done.stdout.rstrip().rpartition("\n")[2].partition(": ")
    if message:
        return UnusableWeights(message) if stage == "weights" else ModelError(message)
    reason = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    if output := done.stderr.strip():  # a traceback, or why the engine aborted
        log.warning("the process that tried %s ended with %s: %s", name, reason, output.rpartition("\n")[2])
    if stage == "template":
        return ModelError(f"{name} cannot be served: its chat template {TOO_MUCH} ({reason})")
    if done.returncode == -signal.SIGKILL:
        return ModelError(f"too little memory: the system ended the process that tried {name}; choose a smaller model")
    if stage == "file":
        return ModelError(f"{name} cannot be served: it cannot be read ({reason})")
    return EngineFault(f"{name} cannot be served: the engine crashes on its weights ({reason})")


def _import_path() -> list[str]:
    """Return the parent's import path without its current folder, followed by the folder of this package."""
    here = _current_folder()
    entries = [entry for entry in sys.path if os.path.isabs(entry) and os.path.realpath(entry) != here]
    return [*entries, str(Path(__file__).resolve().parents[2])]


def _current_folder() -> str:
    """Return the current folder; empty if it was deleted."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""
