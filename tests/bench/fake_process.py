"""The scripted server as a process of its own, for `--serve`: `python fake_process.py --port N`."""

import signal
import socket
import sys
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.bench.fake_server import SHORT, FakeServer  # the path comes first


def main() -> None:
    listener = socket.create_server(("127.0.0.1", int(sys.argv[2])), backlog=512)

    def end(number: int, frame: FrameType | None) -> None:
        listener.shutdown(socket.SHUT_RDWR)

    signal.signal(signal.SIGTERM, end)
    FakeServer(listener, SHORT, 0.002, (0.0, 0.0)).serve()


if __name__ == "__main__":
    main()
