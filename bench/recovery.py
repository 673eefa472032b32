"""Time until `responsed serve` is ready again after a kill -9 under load, beside a start without one.

    python bench/recovery.py --model model.gguf --rounds 5

Each round starts the server on a state folder of its own, streams to four clients, kills it by SIGKILL, and starts it
again. `ready` is the time from the start of the process to `READY=1` (sd_notify(3)); `stored` counts the responses that
were read to their end before the crash and are found after it.

The table is for people; the very last line of stdout is one JSON object for scripts. The exit status is 1 if a crash
costs more than a second, by the medians, or a stored response.
"""

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from statistics import median
from time import perf_counter

CLIENTS = 4
"""Clients that stream when the server is killed."""
STORED = 3
"""Responses that are read to their end before the crash."""
MAX_EXTRA_SECONDS = 1.0
"""Seconds by which a start after a crash may be longer."""
READY_SECONDS = 300.0
"""Seconds after which a start has failed."""


class StartedServer:
    """A server that has become ready."""

    def __init__(self, folder: Path, flags: list[str]) -> None:
        """Start the server with its state in the folder, and wait until it is ready."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            address = folder / "notify"
            address.unlink(missing_ok=True)
            channel.bind(str(address))
            channel.settimeout(READY_SECONDS)
            command = [sys.executable, "-m", "server", "serve", "--port", "0", "--state-dir", str(folder / "state")]
            began = perf_counter()
            self.process = subprocess.Popen(
                [*command, *flags], env=os.environ | {"NOTIFY_SOCKET": str(address)}, stderr=subprocess.DEVNULL
            )
            while not (message := channel.recv(4096).decode()).startswith("READY=1"):
                pass
            self.seconds = perf_counter() - began
            self.port = int(message.rpartition(":")[2])

    def request(self, method: str, path: str, **fields: object) -> http.client.HTTPResponse:
        """Send a request with these fields of its body, and return the response, whose body is not read."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=READY_SECONDS)
        body = json.dumps(fields) if fields else None
        connection.request(method, path, body, {"Content-Type": "application/json"})
        return connection.getresponse()

    def kill_under_load(self) -> None:
        """Kill the process while it streams to all clients."""
        streaming = threading.Barrier(CLIENTS + 1)

        def stream() -> None:
            answer = self.request(
                "POST", "/v1/responses", input="Write a long story.", stream=True, max_output_tokens=2000
            )
            answer.read(1)
            streaming.wait(READY_SECONDS)
            try:
                answer.read()
            except (OSError, http.client.HTTPException):
                return

        threads = [threading.Thread(target=stream) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        streaming.wait(READY_SECONDS)
        self.kill()
        for thread in threads:
            thread.join()

    def kill(self) -> None:
        """End the process by SIGKILL."""
        self.process.kill()
        self.process.wait()


def play(flags: list[str]) -> tuple[float, float, int]:
    """Return the seconds of a start, those of the start after a crash, and the number of stored responses found."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        served = StartedServer(folder, flags)
        start = served.seconds
        made = [
            json.load(served.request("POST", "/v1/responses", input=f"Say {number}.", max_output_tokens=8))
            for number in range(STORED)
        ]
        served.kill_under_load()
        again = StartedServer(folder, flags)
        found = [json.load(again.request("GET", f"/v1/responses/{each['id']}")) for each in made]
        again.kill()
        return start, again.seconds, sum(before == after for before, after in zip(made, found, strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the start after a kill -9 under load.")
    parser.add_argument("--model", required=True, help="GGUF file")
    parser.add_argument("--rounds", type=int, default=5, help="Crashes (default: 5)")
    flags = parser.parse_args()
    server_flags = ["--model", flags.model, "--slots", str(CLIENTS)]
    play(server_flags)  # the first look at the file runs in a process of its own
    rounds = [play(server_flags) for _ in range(flags.rounds)]
    start, again = (median(row[column] for row in rounds) for column in (0, 1))
    stored = sum(row[2] for row in rounds)
    print(f"{'ready, s':12} {'p50':>6} {'max':>6}")
    for name, column in (("start", 0), ("after crash", 1)):
        print(f"{name:12} {median(row[column] for row in rounds):6.2f} {max(row[column] for row in rounds):6.2f}")
    print(f"stored       {stored} of {STORED * flags.rounds}")
    print(json.dumps({"start": start, "after_crash": again, "stored": stored, "expected": STORED * flags.rounds}))
    return int(again > start + MAX_EXTRA_SECONDS or stored < STORED * flags.rounds)


if __name__ == "__main__":
    sys.exit(main())
