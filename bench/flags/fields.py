"""The requests that the flags ask for: their fields, and how they differ from those of other clients."""

import argparse
import json
from typing import Any

from apis import APIS
from target import ClientOptions
from transport import Tls


def client_options(args: argparse.Namespace) -> ClientOptions:
    """Return the properties of requests and connections that the flags ask for."""
    return ClientOptions(
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
    if args.ignore_eos:
        fields["ignore_eos"] = True
    return fields | {"store": False} if args.no_store else fields
