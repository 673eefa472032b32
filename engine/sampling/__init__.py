"""Logits to a token: penalties, samplers and logprobs. Imports the root only."""

from engine.sampling.sampler import Sampler

__all__ = [
    "Sampler",
]
