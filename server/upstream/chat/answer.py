"""The answer to a job by chat completions: one request."""

from server.upstream.chat.job import Answered, ChatJob, Deltas
from server.upstream.chat.reader import ChatReader
from server.upstream.transport import EVENT_STREAM, Attempt, UpstreamClient, faults

CHAT = "/chat/completions"


async def ask(client: UpstreamClient, job: ChatJob, attempt: Attempt) -> None:
    """Ask one upstream. Raises UpstreamFault, OutputMismatch, trio.BrokenResourceError."""
    if not job.max_tokens:  # a prompt to evaluate in advance
        await attempt.send(Answered(None))
        return
    url = client.address.url
    reader = ChatReader(url, job.calls, job.parallel, job.checks, job.max_tokens)
    async with client.request("POST", client.address.path + CHAT, job.body, job.fronts) as answer:
        if answer.content_type != EVENT_STREAM:
            said = faults.one_line(await answer.message())
            raise faults.malformed(url, f"its answer is {answer.content_type!r} instead of a stream ({said})")
        counted = 0
        while not reader.done:
            data = await answer.data()
            inputs = reader.feed(data) if data else reader.finish()
            if inputs:
                await attempt.begin()
            if inputs or reader.deltas > counted:
                counted = reader.deltas
                await attempt.send(Deltas(tuple(inputs), reader.deltas, reader.reasoning_deltas))
        attempt.complete()
        await attempt.send(Answered(reader.usage, reader.incomplete, reader.stop))
        if not reader.ended_early:
            await answer.drain()
