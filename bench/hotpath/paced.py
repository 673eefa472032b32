"""Serve chat completions at an exact pace without a model: `python bench/hotpath/paced.py --port 8081 --rate 10`.

Stands for the upstream when the cost of a front is measured. An answer has `max_completion_tokens` deltas of a word,
`--rate` of them a second, the first at once. Needs the standard library only.
"""

import argparse
import asyncio
import contextlib
import json
import signal

DEFAULT_TOKENS = 64
CHUNK = '{"id":"chatcmpl-paced","object":"chat.completion.chunk","created":0,"model":"paced","choices":[%s],"usage":%s}'
DELTA = CHUNK % ('{"index":0,"delta":{"content":"word "},"finish_reason":null}', "null")
LAST = CHUNK % ('{"index":0,"delta":{},"finish_reason":"stop"}', "null")
MODELS = {"object": "list", "data": [{"id": "paced", "object": "model", "max_model_len": 100_000}]}


def event(data: str) -> bytes:
    """Return a chunk of the body with one server-sent event."""
    line = f"data: {data}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(line), line)


def whole(body: object, status: str = "200 OK") -> bytes:
    """Return a response whose body is a JSON object."""
    data = json.dumps(body).encode()
    return f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


def usage(body: dict[str, object], tokens: int) -> dict[str, int]:
    """Return the usage of a request; words count as tokens."""
    prompt = len(json.dumps(body.get("messages")).split())
    return {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}


class PacedServer:
    """Answers requests at `rate` tokens a second a stream."""

    def __init__(self, rate: float) -> None:
        self._rate = rate

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of a connection, until the client closes it."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
                data = await reader.readexactly(int(fields.get("content-length", 0)))
                await self._answer(head.split()[1], json.loads(data or b"{}"), writer)
                await writer.drain()
        writer.close()

    async def _answer(self, path: str, body: dict[str, object], writer: asyncio.StreamWriter) -> None:
        if path != "/v1/chat/completions":
            writer.write(
                whole(MODELS) if path == "/v1/models" else whole({"error": {"message": path}}, "404 Not Found")
            )
            return
        tokens = int(str(body.get("max_completion_tokens") or body.get("max_tokens") or DEFAULT_TOKENS))
        if not body.get("stream"):
            message = {"role": "assistant", "content": "word " * tokens}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            writer.write(whole({"id": "chatcmpl-paced", "choices": [choice], "usage": usage(body, tokens)}))
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        delta, began = event(DELTA), asyncio.get_running_loop().time()
        for number in range(tokens):
            await asyncio.sleep(began + number / self._rate - asyncio.get_running_loop().time())
            writer.write(delta)
            await writer.drain()
        writer.write(
            event(LAST) + event(CHUNK % ("", json.dumps(usage(body, tokens)))) + event("[DONE]") + b"0\r\n\r\n"
        )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True, metavar="PORT")
    parser.add_argument("--rate", type=float, default=10.0, metavar="TOKENS_PER_SECOND", help="default: 10")
    arguments = parser.parse_args()
    server = await asyncio.start_server(PacedServer(arguments.rate).serve, "127.0.0.1", arguments.port, backlog=1024)
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
