"""Lengths of prompts and answers in tokens, by the server's own counts."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from answer import parse
from client import WireRequest
from target import Target
from texts import Texts

FORMS = "N, uniform:LOW,HIGH, lognormal:MEDIAN,SIGMA, or file:PATH with a number in each line"
"""Descriptions that `Length.parse` reads."""
_FEW, _MANY = 8, 208
"""Words of the two prompts whose tokens are counted."""

Draw: TypeAlias = Callable[[random.Random], int]


@dataclass(slots=True, frozen=True)
class Length:
    """A distribution of numbers of tokens; `text` is its description."""

    text: str
    draw: Draw

    @classmethod
    def parse(cls, text: str) -> "Length":
        """Return the distribution that a text describes. Raises ValueError."""
        kind, _, rest = text.partition(":")
        try:
            return cls(text, _DISTRIBUTIONS[kind](rest) if rest else _constant(kind))
        except (KeyError, ValueError) as error:
            raise ValueError(f"a length is {FORMS}; not {text!r}") from error
        except OSError as error:
            raise ValueError(f"{text}: {error.strerror}") from error


def _constant(text: str) -> Draw:
    number = _positive(text)
    return lambda rng: number


def _uniform(bounds: str) -> Draw:
    low, high = map(_positive, bounds.split(","))
    if low > high:
        raise ValueError
    return lambda rng: rng.randint(low, high)


def _lognormal(parameters: str) -> Draw:
    median, sigma = parameters.split(",")
    mu, spread = _positive(median), float(sigma)
    return lambda rng: max(1, round(mu * rng.lognormvariate(0, spread)))


def _listed(path: str) -> Draw:
    numbers = [_positive(line) for line in Path(path).read_text().split()]
    if not numbers:
        raise ValueError
    return lambda rng: rng.choice(numbers)


_DISTRIBUTIONS = {"uniform": _uniform, "lognormal": _lognormal, "file": _listed}


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


class Lengths:
    """Prompts and answers of drawn lengths; without a distribution, prompts of `words` and answers of `tokens`."""

    def __init__(self, words: int, tokens: int, input_: Length | None = None, output: Length | None = None) -> None:
        self._words = words
        self._tokens = tokens
        self._input = input_
        self._output = output
        self._measured: dict[int, tuple[float, float]] = {}
        """Tokens of an empty prompt and of a word, by the `id` of the target."""

    def draw(self, target: Target, texts: Texts) -> WireRequest:
        """Return a request with a prompt and an answer of drawn lengths; equal texts draw equal lengths."""
        wanted = None if self._input is None else self._input.draw(texts.rng)
        tokens = self._tokens if self._output is None else self._output.draw(texts.rng)
        return self.request(target, texts, wanted, tokens)

    def request(self, target: Target, texts: Texts, input_tokens: int | None, tokens: int) -> WireRequest:
        """Return a request with about that many input tokens. Raises ValueError if the server counts none."""
        words = self._words
        if input_tokens is not None:
            empty, word = self._calibration(target)
            words = max(1, round((input_tokens - empty) / word))
        return target.request(texts.prompt(words), tokens)

    def _calibration(self, target: Target) -> tuple[float, float]:
        if id(target) not in self._measured:
            texts = Texts("calibration")
            few, many = (_input_tokens(target, texts.prompt(count)) for count in (_FEW, _MANY))
            if few >= many:
                raise ValueError(f"{target.url} reports no usage.input_tokens, which --input-tokens needs")
            word = (many - few) / (_MANY - _FEW)
            self._measured[id(target)] = few - _FEW * word, word
        return self._measured[id(target)]


def _input_tokens(target: Target, prompt: str) -> int:
    record = parse(target.client().play([target.request(prompt, 1)], 1)[0])
    if record.error:
        raise ValueError(f"{target.url}: a request of calibration failed: {record.error}")
    return record.input_tokens
