"""The flags of the bench."""

import argparse
import json
from pathlib import Path
from typing import Any

from apis import APIS
from client import STALL_SECONDS
from endpoint import Tls
from measures import Objectives
from scenarios import SCENARIOS
from target import Manners

EPILOG = """\
Exit status: 0 if all requests succeeded, 1 if some failed, 2 if a server is unreachable or the arguments are wrong.
The tables are for people; the very last line of stdout is one JSON object for scripts."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of all flags."""
    found = argparse.ArgumentParser(
        prog="bench",
        description="Measure the latency of a server of the Responses API, Chat Completions or completions.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _server(found.add_argument_group("servers"))
    _load(found.add_argument_group("load"))
    _requests(found.add_argument_group("requests"))
    _measures(found.add_argument_group("measures"))
    return found


def manners(args: argparse.Namespace) -> Manners:
    """Return the properties of requests and connections that the flags ask for."""
    return Manners(
        api=args.api,
        model=args.model,
        key=args.api_key,
        fields=_fields(args),
        keep_alive=not args.no_keep_alive,
        stall=args.stall_timeout,
        tls=Tls(args.ca, args.insecure),
    )


def deviations(args: argparse.Namespace) -> list[str]:
    """Return how requests differ from those that clients send by default."""
    found = [f"{name}: {json.dumps(value)}" for name, value in _fields(args).items()]
    if args.no_keep_alive:
        found.append("a connection for each request")
    if APIS[args.api].counts:
        found.append("stream_options: include_usage")
    return found


def _fields(args: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of requests that the flags add to a client's default ones."""
    fields: dict[str, Any] = dict(args.field or ())
    if args.temperature is not None:
        fields["temperature"] = args.temperature
    if args.trace:
        fields["return_token_times"] = True
    return fields | {"store": False} if args.no_store else fields


def _server(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--url", help="http://HOST:PORT, https://HOST:PORT or unix:PATH; http:// and /v1 may be missing")
    add("--vs", metavar="URL", help="another server to alternate and compare with")
    add(
        "--restart",
        metavar="COMMAND",
        help="command that restarts the server (warm-restart, rotation), such as: systemctl restart responsed",
    )
    add("--api", choices=APIS, default="responses", help="API that is measured (default: %(default)s)")
    add("--api-key", metavar="KEY", help="key for Authorization: Bearer")
    add("--ca", type=Path, metavar="FILE", help="certificates of authorities for https, instead of the system's")
    add("--insecure", action="store_true", help="accept any certificate")
    add("--model", help="default: first model of /v1/models")


def _load(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--scenario", choices=SCENARIOS, default="single", help="default: %(default)s")
    add("--rounds", type=positive, default=1, help="rounds of the scenario, counted together")
    add("--concurrency", type=positive, default=1, help="number of parallel streams (single)")
    add(
        "--requests",
        type=positive,
        default=20,
        help="requests of a round or of a level (single, concurrent, constrained, forms)",
    )
    add("--seed", type=int, default=0)
    add("--warmup", type=not_negative, default=1, help="requests before the first round, not counted")


def _requests(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--tokens", type=positive, default=64, help="maximum tokens of each answer (single, concurrent, constrained)")
    add("--prompt-words", type=positive, default=50, help="words of a prompt (single, concurrent, constrained, forms)")
    add("--no-store", action="store_true", help="send store: false, which clients do not send by default")
    add("--temperature", type=float, help="send this temperature, which clients do not send by default")
    add("--field", type=field, action="append", metavar="NAME=JSON", help="send another field, such as top_k=1")
    add("--no-keep-alive", action="store_true", help="open a connection for each request, as clients do not")
    add(
        "--stall-timeout",
        type=positive,
        default=int(STALL_SECONDS),
        metavar="SECONDS",
        help="without data after which a stream has failed (default: %(default)s)",
    )


def _measures(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--slo", type=objectives, metavar="NAME=TIME,...", help="objectives of a request, such as ttft=200ms,itl=30ms")
    add("--trace", action="store_true", help="ask `responsed serve --token-times true` where the time of a token goes")


def positive(text: str) -> int:
    """Parse a number of at least 1."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def not_negative(text: str) -> int:
    """Parse a number of at least 0."""
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return number


def field(text: str) -> tuple[str, Any]:
    """Parse a field of a request: JSON, or a text without quotes."""
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=JSON")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def objectives(text: str) -> Objectives:
    """Parse objectives."""
    try:
        return Objectives.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
