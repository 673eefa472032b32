"""Upstream servers that generate instead of the embedded engine, behind the same two interfaces.

`UpstreamRegistry` has the facts about each upstream, and `LiveModel` is their model by the latest of these. It makes
the job of a request (`server.served_model.interface`). `UpstreamGenerator` runs it (`server.generation.generator`): it
chooses an upstream, and asks it over HTTP/1.1.

In the chat form (`server.upstream.chat`), messages become the body of a chat completion. `ChatReader` reads the stream,
whose results are inputs of the stream machine already; `ChatProcessor` passes them on and counts the usage.

In the token form (`server.upstream.tokens`), the jobs and the processor are those of the embedded engine, and only the
tokens come from an upstream.

An attempt that fails before its first delta is repeated at another upstream; after that, the response ends as `failed`
with the cause. Connections and timeouts are in `server.upstream.transport`, retries in `attempts`.
"""

from server.upstream.upstreams import NoUpstream, ask, connect, tokenizer

__all__ = [
    "NoUpstream",
    "ask",
    "connect",
    "tokenizer",
]
