"""Logits to a token: penalties, samplers and logprobs. Imports the engine's root only."""

from engine.sampling.sampler import Sampler

__all__ = [
    "Sampler",
]
