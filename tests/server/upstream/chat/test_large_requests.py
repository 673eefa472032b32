"""Requests with large tools before an upstream: their schemas are read beside the event loop, once for the checks."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import msgspec
import pytest

from server.config import Config, LiveConfig
from server.prompt import Past, prepare
from server.protocol import request
from server.served_model import UNCONSTRAINED, JobParams, OutputConstraints
from server.upstream.chat.job import ChatJob
from server.upstream.chat.model import OPENAI_DEFAULTS, UpstreamModel
from server.upstream.chat.output_checks import OutputChecks, checks_of
from server.work_thread import LARGE, WorkThread
from tests.server.upstream.chat.test_guarantees import DIGITS, FORMAT, SCHEMA, TOOL

P = ParamSpec("P")
T = TypeVar("T")
REGEX = {"type": "grammar", "syntax": "regex", "definition": "[0-9]+|" + "a" * LARGE}
LONG = {**SCHEMA, "description": "x" * LARGE}
LARGE_REQUESTS: dict[str, dict[str, Any]] = {
    "tool": {"tools": [TOOL | {"parameters": LONG}]},
    "tools": {"tools": [TOOL | {"name": f"go{n}"} for n in range(LARGE // 100)]},
    "regex": {"tools": [DIGITS | {"format": REGEX}]},
    "format": {"text": {"format": {"type": "json_schema", "name": "place", "schema": LONG}}},
}


class NotedWork(WorkThread):
    """Notes the functions that run in the thread, and those that run on the event loop since they are short."""

    def __init__(self) -> None:
        super().__init__()
        self.beside: list[str] = []
        self.short: list[str] = []

    async def run(self, size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        (self.beside if size > LARGE else self.short).append(work.__name__)
        return await super().run(size, work, *args, **kwargs)


async def made(work: WorkThread, fields: dict[str, Any]) -> tuple[OutputConstraints, ChatJob]:
    """Return the constraints of a request and its job."""
    model = UpstreamModel(name="m", created=0, n_ctx=1 << 20, n_slots=1).open(LiveConfig(Config()), None, work)
    prepared = prepare(request.decode(msgspec.json.encode({"input": "Hi", **fields})), Past())
    constraints = await model.constraints(prepared)
    params = JobParams(
        request=prepared.request,
        field="input",
        sampling=OPENAI_DEFAULTS,
        constraints=constraints,
        toolbox=prepared.toolbox,
    )
    return constraints, await (await model.prompt(prepared)).job(params)


@pytest.mark.parametrize("name", LARGE_REQUESTS)
async def test_large_schemas_are_read_in_the_thread(name: str) -> None:
    work = NotedWork()
    constraints, job = await made(work, LARGE_REQUESTS[name])
    copied = [] if name == "format" else ["_body"]  # the schema of a format is copied as it is
    assert work.beside == ["constraints", *copied]
    assert job.checks is checks_of(constraints)
    assert job.checks != OutputChecks()


async def test_small_requests_wait_for_no_thread() -> None:
    work = NotedWork()
    constraints, job = await made(work, {})
    assert (constraints, job.checks, work.beside, work.short) == (UNCONSTRAINED, OutputChecks(), [], ["_body"])
    await made(work, FORMAT | {"tools": [TOOL]})
    assert work.beside == []
