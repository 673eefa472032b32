"""Logits to a token: penalties, samplers and logprobs. Imports the engine's root only."""
