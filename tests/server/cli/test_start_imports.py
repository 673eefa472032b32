"""Modules that a command loads before it begins its work."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow
SLOW = {"trio", "hypercorn", "h11", "sqlite3", "server.api", "server.store"}
"""Modules that `serve` imports while llama.cpp reads the model file (0.1 s of Python)."""


def test_serve_begins_to_load_the_model_before_it_imports_the_server() -> None:
    code = "import sys, server.cli.main, server.cli.serve; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert SLOW & set(loaded) == set()


@pytest.mark.parametrize(("command", "collects"), [("serve", False), ("models", True)])
def test_garbage_collector_rests_while_serve_starts(command: str, collects: bool) -> None:
    code = f"import gc, sys; sys.argv = ['responsed', '{command}']; import server.__main__; print(gc.isenabled())"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == f"{collects}\n"


def test_garbage_collector_works_while_the_daemon_runs() -> None:
    code = (
        "import gc\n"
        "gc.disable()\n"
        "from server.cli import running\n"
        "async def serve(): print(gc.isenabled(), gc.get_freeze_count() > 0)\n"
        "running.run_daemon(serve)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "True True\n"


@pytest.mark.parametrize(("ignores", "handlers"), [(False, "0 True"), (True, "1 False")])
def test_interrupt_ends_the_process_while_serve_imports_its_modules(ignores: bool, handlers: str) -> None:
    """An exception is lost if the signal comes in a callback of an import's lock. Shells ignore it in background."""
    code = (
        "import signal, sys\n"
        f"if {ignores}: signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "sys.argv = ['responsed', 'serve', '--print-config']\n"
        "from server.__main__ import main\n"
        "importing = int(signal.getsignal(signal.SIGINT))\n"
        "main()\n"
        "print(importing, signal.getsignal(signal.SIGINT) is signal.default_int_handler, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == f"{handlers}\n"
