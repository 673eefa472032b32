"""Render messages to text with a chat template in Jinja.

A template is untrusted input from a downloaded file. minijinja exposes no Python objects to it, and its fuel bounds the
time of a rendering. Fuel does not bound memory in minijinja 3.0 and only partly in 3.1, so `loader.probe` renders every
template once in a child process with little time and memory before a model is served.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NoReturn

import minijinja

from engine.chat_template import jinja
from engine.chat_template.minijinja_source import readable
from engine.chat_template.sources import PLAIN
from engine.chat_template.values import Turn
from engine.tokenizer import Vocabulary

MAX_SOURCE = 64 * 1024
"""Maximum characters of a template; the largest known ones have 20,000."""
FUEL = 1_000_000
"""minijinja instructions for one rendering, about 20 ms. Two thousand messages take a tenth. minijinja 3.1 also charges
for long texts that a template builds."""

TOO_MUCH = "needs too much time or memory"
"""Predicate of the error for a template that runs out of fuel, or of the probe's time or memory."""


class TemplateError(Exception):
    """The template is broken, or refuses the conversation. The message is one sentence for the user."""


class TemplateEndless(TemplateError):
    """The rendering ran out of fuel."""


class CompiledTemplate:
    """A chat template, compiled by minijinja."""

    def __init__(self, source: str | None, vocabulary: Vocabulary) -> None:
        """Compile a template. Without `source`, or if it is blank, the prompt is the plain texts. Raises
        TemplateError."""
        source = source if source and not source.isspace() else None
        if source is not None and len(source) > MAX_SOURCE:
            raise TemplateError(
                f"the model's chat template has {len(source)} characters; at most {MAX_SOURCE} are read"
            )
        self._environment = minijinja.Environment(
            fuel=FUEL,
            trim_blocks=True,
            lstrip_blocks=True,
            debug=False,
            filters=jinja.FILTERS,
            tests=jinja.TESTS,
            globals={
                "raise_exception": _raise_exception,
                "strftime_now": _strftime_now,
                "dict": jinja.new_dict,
                jinja.METHOD: jinja.method,
                "bos_token": vocabulary.name_of(vocabulary.bos),
                "eos_token": vocabulary.name_of(vocabulary.eos),
            },
        )
        try:
            self._environment.add_template("chat", PLAIN if source is None else readable(source))
        except minijinja.TemplateError as error:
            raise TemplateError(f"the model's chat template cannot be read: {_first_line(error)}") from error

    def try_render(self, turns: list[Turn], **variables: Any) -> str | None:
        """Return the prompt's text; None if the template refuses the messages. Raises TemplateEndless."""
        try:
            return self.render(turns, **variables)
        except TemplateEndless:
            raise
        except TemplateError:
            return None

    def render(self, turns: list[Turn], **variables: Any) -> str:
        """Return the prompt's text. Raises TemplateError."""
        always = {"messages": turns, "add_generation_prompt": True, "tools": None, "documents": None}
        try:
            return self._environment.render_template("chat", **{**always, **_family_variables(), **variables})
        except minijinja.TemplateError as error:
            if error.kind == "OutOfFuel":
                raise TemplateEndless(f"the model's chat template {TOO_MUCH}") from error
            raise TemplateError(f"the model's chat template refuses this conversation: {_first_line(error)}") from error
        except (_RaisedByTemplate, *jinja.HELPER_ERRORS) as error:
            raise TemplateError(f"the model's chat template refuses this conversation: {error}") from error


def _family_variables() -> dict[str, str]:
    """Return variables that only one family reads (Firefunction): no functions, and a date that lets prompts share a
    prefix."""
    return {"functions": "[]", "datetime": _strftime_now("%Y-%m-%d")}


class _RaisedByTemplate(Exception):
    """Raised by a template that calls `raise_exception`."""


def _raise_exception(message: str) -> NoReturn:
    raise _RaisedByTemplate(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _first_line(error: minijinja.TemplateError) -> str:
    return str(error.detail or error).splitlines()[0]
