"""Parts of the way of a token through the server, measured in this process, without a model's work."""

from hotpath import parts
from hotpath.metronome import ticks_of, use_one_core

__all__ = ["parts", "ticks_of", "use_one_core"]
