"""Demand, cuts and usage of a generation that has several jobs."""

from collections.abc import Sequence

from msgspec.structs import replace

from server.access import Caller
from server.generation.admission import Load
from server.generation.generator import GeneratorJob
from server.postprocessing import Processor
from server.protocol.response import Usage, total_usage
from server.stream import End, Failure, State, StreamInput, ToolCallStarted


def load_of(job: GeneratorJob, caller: Caller, processor: Processor, seconds: float) -> Load:
    """Return the demand of a job for a slot. `seconds`: since its response's first token."""
    return Load(
        job.lane,
        caller.name,
        started=processor.started,
        prompt_tokens=processor.pending_prompt_tokens,
        output_tokens=processor.output_tokens,
        max_tokens=job.max_tokens,
        seconds=seconds,
    )


def can_cut(processor: Processor, state: State, inputs: Sequence[StreamInput]) -> bool:
    """True if the output is text or reasoning that may end behind `inputs`."""
    has_call = any(isinstance(each, ToolCallStarted) for each in inputs)
    running = state in (State.RUNNING, State.WRITING)
    return running and not has_call and processor.output_tokens > 0 and not processor.ended


def with_usage_of_all(last: StreamInput, earlier: Usage | None) -> StreamInput:
    """Return the last input of a job with the usage of all jobs."""
    if isinstance(last, End | Failure) and last.usage is not None and earlier is not None:
        return replace(last, usage=total_usage([earlier, last.usage]))
    return last
