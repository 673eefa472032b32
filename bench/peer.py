"""llama.cpp's own HTTP server from PyPI's `xllamacpp` wheel: a peer to compare with that needs no compiler.

    python bench/peer.py --model model.gguf --port 8081

It is the code of `llama-server -t 2 -np 8 -c 32768` in a Python process that does nothing else. Only the build differs:
the wheel's runs on every CPU with AVX2, while a locally compiled llama-server uses all of the machine's instructions
(AVX-512, VNNI). Single-stream tokens/s is 0.8 to 0.95 of a native build. Without llama-cpp-python our engine loads the
same file, so a comparison with this peer uses equal engines. For a native peer, compile llama-server and pass its URL
to `run.py --vs`.

The first line of stdout is the URL, once the model is loaded. SIGTERM or SIGINT ends the process.
"""

import argparse
import signal
from pathlib import Path

import xllamacpp  # it has no type information

QUIET = 1
"""llama.cpp's verbosity for errors only. Its usual lines, several a request, cost time that is not the server's."""


def params(args: argparse.Namespace) -> xllamacpp.CommonParams:
    """Return the server's parameters."""
    chosen = xllamacpp.CommonParams()
    chosen.model.path = str(args.model)
    chosen.hostnames, chosen.port = [args.host], args.port
    chosen.n_ctx, chosen.n_parallel = args.context, args.slots
    chosen.cpuparams.n_threads = chosen.cpuparams_batch.n_threads = args.threads
    chosen.verbosity = QUIET
    if args.chat_template is not None:
        chosen.chat_template = args.chat_template.read_text()
    chosen.sampling.reasoning_budget_tokens = args.reasoning_budget
    return chosen


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/peer.py", description="llama.cpp's HTTP server as a peer for comparison."
    )
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="default: any free port")
    parser.add_argument("--threads", type=int, default=2, help="-t (default: %(default)s)")
    parser.add_argument("--slots", type=int, default=8, help="-np (default: %(default)s)")
    parser.add_argument("--context", type=int, default=32768, help="-c, for all slots together (default: %(default)s)")
    parser.add_argument("--chat-template", type=Path, help="a Jinja file instead of the model's template")
    parser.add_argument("--reasoning-budget", type=int, default=-1, help="tokens of reasoning (default: no limit)")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    end_signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, end_signals)  # before the server's threads, which inherit it
    server = xllamacpp.Server(params(args))
    print(server.listening_address, flush=True)
    signal.sigwait(end_signals)


if __name__ == "__main__":
    main()
