"""Stages of `POST /v1/responses`: each runs once, on the result of the one before."""

import msgspec
import trio

from engine.backends import scripted
from engine.backends.scripted import ScriptedModel
from engine.chat_template.template import ChatTemplate
from engine.runtime.engine import Engine
from server.api.generation_specs import SpecBuilder
from server.config.config import Config
from server.generation import ActivityCount, AdmissionControl, Generations, Timeouts
from server.prompt import Past, prepare
from server.protocol import request as wire
from server.served_model.model import ModelDetails, ServedModel
from tests.support.helpers import NAME


async def test_pipeline_of_plain_request_gives_its_events() -> None:
    model = ScriptedModel(lambda prompt: b"Hi.")
    vocabulary = scripted.vocabulary()
    details = ModelDetails(NAME, 0, model.info, vocabulary, ChatTemplate(scripted.TEMPLATE, vocabulary))
    engine = Engine(model, vocabulary.end_tokens)
    served = ServedModel(details, ())
    specs = SpecBuilder(Config(model=NAME), engine, served, None)
    generations = Generations(
        engine, None, Timeouts(heartbeat=0, resume_window=60), AdmissionControl(2, 8), ActivityCount()
    )

    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await nursery.start(generations.host)

        request = wire.decode(b'{"input": "Hello", "stream": true}')  # decode
        prepared = prepare(request, Past())  # load the past, build messages
        constraints = await specs.constraints(prepared)  # compile constraints
        tokens = await specs.tokens(prepared)  # render and tokenize the prompt
        spec = await specs.build(prepared, tokens, "client", constraints)
        generations.check()  # admit
        with generations.make(spec) as generation, generation.reading():
            generations.start(generation)  # generate
            await generation.ended.wait()
            events = await generation.after(-1)  # stream
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
