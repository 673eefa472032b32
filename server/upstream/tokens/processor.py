"""The processor of tokens from an upstream: that of the embedded engine, with the way of the job. Pure."""

from engine.job import EngineOutput
from server.postprocessing import OutputProcessor
from server.stream import StreamInput, failure
from server.upstream.transport import AttemptBegun, AttemptsFailed, FirstDelta


class TokenProcessor(OutputProcessor):
    def process(self, output: EngineOutput | AttemptBegun | FirstDelta | AttemptsFailed, now: int) -> list[StreamInput]:
        """Return the stream inputs for an output. Raises the error of a job that failed without any output."""
        match output:
            case AttemptBegun():
                self.started = True
                return []
            case FirstDelta(trace):
                self.upstream = trace
                return []
            case AttemptsFailed(error) if not (self.output_tokens or self.ended):
                self.started = False  # there is no usage to report
                raise error
            case AttemptsFailed(error):
                was_ended, self.ended = self.ended, True
                return [] if was_ended else [failure(error, self.usage)]
            case _:
                return super().process(output, now)
