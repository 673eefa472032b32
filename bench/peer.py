"""llama.cpp's own HTTP server, out of PyPI's `xllamacpp` wheel: the peer to measure against, without a compiler.

    python bench/peer.py --model model.gguf --port 8081

The same code as `llama-server -t 2 -np 8 -c 32768` in a Python process that does nothing else. What differs is
the build: one for every CPU with AVX2, where llama-server compiled on the machine takes what the machine has (AVX-512,
VNNI). Single-stream tokens/s is 0.8 to 0.95 of a native build. It is the same file as our engine loads where no
llama-cpp-python is installed, so a comparison with that one is engine-equal. For a native peer compile llama-server
and give its URL to `run.py --vs`.

The first line of stdout is the URL, once the model is loaded. Ends on SIGTERM or SIGINT.
"""

import argparse
import signal
from pathlib import Path

import xllamacpp  # it comes without types

QUIET = 1
"""Of llama.cpp's verbosity: errors only. Its usual lines, several a request, cost time that is not the server's."""


def params(args: argparse.Namespace) -> xllamacpp.CommonParams:
    wished = xllamacpp.CommonParams()
    wished.model.path = str(args.model)
    wished.hostnames, wished.port = [args.host], args.port
    wished.n_ctx, wished.n_parallel = args.context, args.slots
    wished.cpuparams.n_threads = wished.cpuparams_batch.n_threads = args.threads
    wished.verbosity = QUIET
    return wished


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/peer.py", description="llama.cpp's HTTP server, to measure against.")
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="default: any free one")
    parser.add_argument("--threads", type=int, default=2, help="-t (default: %(default)s)")
    parser.add_argument("--slots", type=int, default=8, help="-np (default: %(default)s)")
    parser.add_argument("--context", type=int, default=32768, help="-c, of all slots together (default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before the server's threads, which inherit it
    server = xllamacpp.Server(params(args))
    print(server.listening_address, flush=True)
    signal.sigwait(ends)


if __name__ == "__main__":
    main()
