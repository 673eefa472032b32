"""How quickly a Responses server answers: a stranger that knows its URL and nothing else.

    python bench/run.py --url http://127.0.0.1:8080 --concurrency 4 --requests 20

Standard library only, so it runs beside any server; how it stays out of its own figures: `client.py`.
Prompts are pseudo-random words of a fixed seed, each different from the first word on, so that a prefix cache
does not help by accident. It does help when the same seed is played again to the same running server: take
another `--seed` for cold prompts, and the same one to see what the cache is worth.

Exit status: 0 all answered, 1 some request failed, 2 not reachable or not asked correctly.
The table is for people; the very last line of stdout is one JSON object for scripts.
"""

import argparse
import http.client
import json
import random
import socket
import sys
from urllib.parse import SplitResult, urlsplit

from client import Load, Recording
from report import summarize, table, understand

WORDS = ("river", "stone", "garden", "winter", "market", "letter", "window", "bridge", "island", "copper")


def prompts(count: int, words: int, seed: int) -> list[str]:
    """`count` prompts of `words` words; the first word of each is its own, and the task comes last."""
    rng = random.Random(seed)
    heads = rng.sample(range(16**6), count)
    return [
        f"{head:06x} {' '.join(rng.choices(WORDS, k=words - 1))}. Write a long story with these words."
        for head in heads
    ]


def base_of(url: str) -> SplitResult:
    """The server's address, whether or not the URL says /v1. Raises ValueError on anything but plain HTTP."""
    parts = urlsplit(url.rstrip("/").removesuffix("/v1"))
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"want http://HOST:PORT, not {url!r}")
    return parts


def first_model(base: SplitResult) -> str:
    """The first name of /v1/models. Raises ValueError where there is none."""
    connection = http.client.HTTPConnection(base.hostname or "", base.port or 80, timeout=60)
    try:
        connection.request("GET", f"{base.path}/v1/models")
        response = connection.getresponse()
        return str(json.loads(response.read())["data"][0]["id"])
    except (http.client.HTTPException, ValueError, LookupError, TypeError) as error:
        raise ValueError(f"no model name at /v1/models; give --model ({error!r})") from error
    finally:
        connection.close()


def request_bytes(base: SplitResult, model: str, prompt: str, tokens: int) -> bytes:
    """One whole request. It asks for the connection to be closed, so that the end of the answer is plain."""
    wish = {"model": model, "input": prompt, "max_output_tokens": tokens}
    body = json.dumps(wish | {"stream": True, "temperature": 0, "store": False}).encode()
    head = (
        f"POST {base.path}/v1/responses HTTP/1.1\r\nHost: {base.netloc}\r\nConnection: close\r\n"
        f"Accept: text/event-stream\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def wall_seconds(recordings: list[Recording]) -> float:
    """From the first start to the last read of all."""
    last = max((reads[-1][0] for r in recordings if (reads := r.reads)), default=0.0)
    return max(0.0, last - min(r.start for r in recordings))


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _not_negative(text: str) -> int:
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return number


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/run.py", description="Latency of a Responses server.")
    parser.add_argument("--url", required=True, help="with or without the trailing /v1")
    parser.add_argument("--model", help="default: the first of /v1/models")
    parser.add_argument("--concurrency", type=_positive, default=1, help="streams at a time")
    parser.add_argument("--requests", type=_positive, default=20)
    parser.add_argument("--tokens", type=_positive, default=64, help="max_output_tokens of each request")
    parser.add_argument("--prompt-words", type=_positive, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--warmup", type=_not_negative, default=1, help="requests before, not counted")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    try:
        base = base_of(args.url)
        # Names may stand for several addresses; the one that answers is the one to measure.
        with socket.create_connection((base.hostname, base.port or 80), timeout=60) as probe:
            address, family = probe.getpeername(), probe.family
        model = args.model or first_model(base)
    except (OSError, ValueError) as error:
        print(f"bench: {args.url}: {error}", file=sys.stderr)
        return 2
    texts = prompts(args.warmup + args.requests, args.prompt_words, args.seed)
    requests = [request_bytes(base, model, text, args.tokens) for text in texts]
    Load(address, family, requests[: args.warmup]).play(1)
    recordings = Load(address, family, requests[args.warmup :]).play(args.concurrency)
    figures = summarize([understand(r) for r in recordings], wall_seconds(recordings))
    print(f"{args.url}, {model}: {args.requests} requests, {args.concurrency} at a time\n")
    print(table(figures))
    print(json.dumps(vars(args) | {"model": model} | figures))
    return 1 if figures["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
