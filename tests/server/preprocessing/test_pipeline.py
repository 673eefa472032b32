"""Stages of `POST /v1/responses`: each runs once, on the result of the one before."""

from typing import Any

import msgspec
import trio
import trio.testing

from engine.backends import scripted
from engine.backends.scripted import ScriptedModel
from engine.chat_template.template import ChatTemplate
from engine.runtime.engine import Engine
from server.access import ANYBODY
from server.config.config import Config
from server.config.live import LiveConfig
from server.generation import ActivityCount, AdmissionControl, Generations, GenerationSummary, Origin, Timeouts
from server.http import Exchange
from server.preprocessing.generation_specs import SpecBuilder
from server.preprocessing.reasoning_seal import ReasoningSeal
from server.prompt import Past, prepare
from server.protocol import request as wire
from server.served_model.embedded import ModelDetails
from server.work_thread import WorkThread
from tests.support.helpers import NAME


async def _unused(*_: Any) -> Any:
    raise AssertionError("only handlers read and send")


async def test_pipeline_of_plain_request_gives_its_events() -> None:
    model = ScriptedModel(lambda prompt: b"Hi.")
    vocabulary = scripted.vocabulary()
    details = ModelDetails(NAME, 0, model.info, vocabulary, ChatTemplate(scripted.TEMPLATE, vocabulary))
    engine = Engine(model, vocabulary.end_tokens)
    served = details.open(config := LiveConfig(Config(model=NAME)), None, work := WorkThread())
    specs = SpecBuilder(config, engine, served, None, ReasoningSeal(None, work), work)
    summaries: list[GenerationSummary] = []
    generations = Generations(
        engine, None, Timeouts(heartbeat=0, resume_window=60), AdmissionControl(2, 8), ActivityCount(), summaries.append
    )

    scope = {"method": "POST", "path": "/v1/responses", "raw_path": b"", "headers": [], "client": ("192.0.2.7", 1)}
    exchange = Exchange(scope, _unused, _unused, "req_1")

    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await nursery.start(generations.host)

        request = wire.decode(b'{"input": "Hello", "stream": true}')  # decode
        prepared = prepare(request, Past())  # load the past, build messages
        constraints = await specs.stages.constraints(prepared)  # compile constraints
        prompt = await served.prompt(prepared)  # render and tokenize the prompt
        spec = await specs.build(prepared, prompt, exchange, constraints)
        generations.check_admission(ANYBODY)  # admit
        with generations.admit(spec) as generation, generation.reading(exchange):
            generations.start(generation)  # generate
            await generation.ended.wait()
            events = await generation.after(-1)  # stream
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert [msgspec.to_builtins(event)["type"] for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * 3,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    (summary,) = summaries
    assert summary.origin == Origin("req_1", "192.0.2.7", "/v1/responses")
    assert (summary.response_id, summary.mode, summary.outcome) == (generation.response.id, "stream", "completed")
    assert (summary.input_tokens, summary.cached_tokens, summary.output_tokens) == (len(prompt), 0, 4)
