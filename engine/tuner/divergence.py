"""Measure how far a copy of a model is from the original: the Kullback-Leibler divergence of their next-token
predictions."""

from collections.abc import Sequence

import numpy as np

from engine.model import BatchEntry, FloatArray, Model

TEXT = """\
The lighthouse at the end of the pier was built in 1874, when ships still carried wool and salt to the harbour. \
Its keeper wrote a line in the log every evening: the wind, the height of the waves, and how many sails he had seen. \
In winter there were often none. "Nothing passed today," he wrote once, "but the sea itself."

To make the bread, mix 500 g of flour with 320 ml of water, a little salt and 7 g of yeast. Knead the dough for ten \
minutes, cover it, and let it rest until it has doubled in size. Then bake it at 230 degrees for about half an hour.

def mean(values):
    if not values:
        raise ValueError("there is no mean of nothing")
    return sum(values) / len(values)

Question: Why is the sky blue? Answer: Because air scatters short waves of light more than long ones.
"""
"""About 200 tokens: a story, instructions, a program, an answer."""
MAX_TOKENS = 256
"""Maximum tokens of the text that are compared."""


def next_token_logprobs(model: Model, tokens: Sequence[int]) -> FloatArray:
    """Return (tokens, n_vocab): the logprobs of the next token after each token. Requires `info.multi_row_logits`."""
    tokens = tokens[: min(MAX_TOKENS, model.info.n_ctx, model.info.max_batch_tokens)]
    model.decode([BatchEntry(0, 0, tokens, logits=len(tokens))])
    return np.stack([_log_softmax(model.logits(0, row)) for row in range(len(tokens))])


def mean_divergence(original: FloatArray, copy: FloatArray) -> float:
    """Return the mean divergence in nats a token; 0 if both predict the same."""
    return float(np.mean([np.sum(np.exp(p) * (p - q), dtype=np.float64) for p, q in zip(original, copy, strict=True)]))


def _log_softmax(logits: FloatArray) -> FloatArray:
    shifted: FloatArray = logits - logits.max()
    shifted -= np.log(np.sum(np.exp(shifted), dtype=np.float64))
    return shifted
