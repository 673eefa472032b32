"""Limits of a machine for a model: the bare loop of each engine, and the memory bandwidth."""

from limits.bandwidth import bytes_per_token, read_rates
from limits.engine_loop import EngineLoop
from limits.llama_loop import SLOTS, LlamaLoop

__all__ = ["SLOTS", "EngineLoop", "LlamaLoop", "bytes_per_token", "read_rates"]
