"""Entry point of the command `responsed` and of `python -m server`."""

import gc
import os
import signal
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's own threads only spin here: 0.1 s of CPU at each start
if sys.argv[1:2] == ["serve"]:
    gc.disable()  # until all is imported: the collector searched modules that stay, for 40 ms of each start
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Until `main` runs: an exception is lost in a callback of the imports' locks, for 1 of 800 signals.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

if sys.argv[1:2] == ["bench"]:  # it starts before anything else is imported
    from server.bench_command import main
else:
    from server.cli import main

if __name__ == "__main__":
    sys.exit(main())
