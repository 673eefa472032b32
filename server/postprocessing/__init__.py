"""Output of one job -> stream inputs: text, reasoning, tool calls, logprobs and the usage. Pure."""

from server.postprocessing.output_processor import OutputProcessor
from server.postprocessing.processor import Processor, UpstreamTrace
from server.postprocessing.reasoning_sealer import ReasoningSealer
from server.postprocessing.summary_processor import SummaryProcessor
from server.postprocessing.tool_call_mapper import ToolCallMapper

__all__ = [
    "OutputProcessor",
    "Processor",
    "ReasoningSealer",
    "SummaryProcessor",
    "ToolCallMapper",
    "UpstreamTrace",
]
