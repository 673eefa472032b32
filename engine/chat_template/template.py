"""Chat messages -> prompt tokens, by the model's own template.

A template is untrusted input: it comes out of a downloaded file. minijinja shows it no Python objects, and its fuel
bounds the time of a rendering. minijinja 3.0 does not bound memory by fuel and 3.1 only in part, so `loader.probe`
renders every template once in a child process with little memory before a model is served.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from typing import Any, NoReturn

import minijinja
from msgspec.structs import replace

from engine.chat_template import jinja
from engine.chat_template.capability_probe import detect_capabilities, reads_back
from engine.chat_template.efforts import effort_told
from engine.chat_template.message import Message, Tool
from engine.chat_template.past_calls import calls_writer
from engine.chat_template.rendering import (
    Clean,
    TemplateCapabilities,
    Turn,
    WriteCalls,
    adapt_messages,
    tools_told,
    variables_told,
    with_tools,
)
from engine.chat_template.sources import PLAIN
from engine.dialects import Dialect, Parser, Think, detect_dialect, with_generic
from engine.notations import Offered, marks
from engine.tokenizer import Vocabulary

MAX_SOURCE = 64 * 1024
"""Characters of a template; the largest known ones have 20,000."""
FUEL = 1_000_000
"""minijinja instructions for one rendering: about 20 ms. Two thousand messages take a tenth. minijinja 3.1 also charges
for long texts that a template makes."""

TOO_MUCH = "needs too much time or memory"
"""Predicate for a template that fuel or the probe's memory limit ends: the version of minijinja decides which."""

LAST_WORDS = 24
"""Tokens at a prompt's end that are looked at for reasoning that it has begun."""


_GENERATION = re.compile(r"\{%(-?)\s*(end)?generation\s*(-?)%\}")
"""Hugging Face's own tag, which marks for training what the assistant said. It prints its content as it is."""


class TemplateError(Exception):
    """The template is broken, or refuses the conversation. One sentence for a person."""

    endless = False
    """True if the rendering ran out of fuel."""


NO_VARIABLES: Mapping[str, Any] = {}
RESERVED = frozenset(
    (
        *("messages", "tools", "functions", "datetime", "add_generation_prompt", "bos_token", "eos_token"),
        *("raise_exception", "strftime_now", "dict", "namespace", "range", "chat_template", "tokenize"),
        *("continue_final_message", "return_dict", "return_tensors", jinja.METHOD),
    )
)
"""Names that the server or the template engine sets, and arguments of transformers' `apply_chat_template` beside it."""


class ChatTemplate:
    """A compiled template together with the vocabulary its text is for."""

    def __init__(self, source: str | None, vocabulary: Vocabulary) -> None:
        """An empty `source` counts as none: the texts are told as they are. Raises TemplateError."""
        source = source if source and not source.isspace() else None
        if source is not None and len(source) > MAX_SOURCE:
            raise TemplateError(
                f"the model's chat template has {len(source)} characters; at most {MAX_SOURCE} are read"
            )
        self._vocabulary = vocabulary
        self.dialect = detect_dialect(source)
        """In which the model answers."""
        self._spelled = marks(vocabulary.control_ids)
        self.marks = {vocabulary.control_ids[name]: mark for name, mark in self._spelled.items()}
        """What `Parser.feed` wants to have for control tokens."""
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
            self._environment.add_template("chat", PLAIN if source is None else _readable(source))
        except minijinja.TemplateError as error:
            raise TemplateError(f"the model's chat template cannot be read: {_first_line(error)}") from error

    @cached_property
    def capabilities(self) -> TemplateCapabilities:
        """What the template reads; of a form of calls that nobody here reads, nothing is used."""
        learned = self._learned
        known = reads_back(self._attempt, learned, self.dialect)
        return learned if known else replace(learned, tools=False, form=None)

    @cached_property
    def _learned(self) -> TemplateCapabilities:
        """Found out at first use, which `engine.loader.probe` sees to: not before a child has tried the template."""
        return detect_capabilities(self._attempt)

    @property
    def unread(self) -> bool:
        """True if the template tells functions, but no family has its form of calls."""
        return self._learned.tools and not self.capabilities.tools

    @property
    def tool_dialect(self) -> Dialect:
        """In which it calls functions: as its template tells it, or as we do."""
        return self.dialect if self.capabilities.tools else with_generic(self.dialect)

    @cached_property
    def write_calls(self) -> WriteCalls | None:
        """Writes past calls for a template that has no place for them."""
        return calls_writer(self.tool_dialect)

    def parser(self, prompt: Sequence[int], offered: Offered | None = None, bare: bool = True) -> Parser | None:
        """What takes an answer to `prompt` apart; None where it can be nothing but text. `offered`: the functions
        that it may call; `bare`: see Parser."""
        dialect = self.tool_dialect if offered else self.dialect
        if dialect.plain and not offered:
            return None
        return Parser(dialect, offered, self._spelled, self.thinking(prompt), bare)

    def thinking(self, prompt: Sequence[int]) -> Think | None:
        """What the prompt's last words have begun."""
        vocabulary = self._vocabulary
        last = b"".join(vocabulary.bytes_of(id_) or vocabulary.name_of(id_).encode() for id_ in prompt[-LAST_WORDS:])
        text = last.decode(errors="replace").rstrip()
        return next((think for think in self.dialect.thinks if text.endswith(think.open)), None)

    def prompt(
        self,
        messages: Sequence[Message],
        effort: str | None = None,
        tools: Sequence[Tool] = (),
        variables: Mapping[str, Any] = NO_VARIABLES,
    ) -> list[int]:
        """The conversation's tokens, up to where the assistant's answer begins. Raises TemplateError.

        `effort`: how much is to be thought, in the API's words; None: as the template has it. `tools`: the functions
        that may be called. `variables`: more of the template's variables, none of `RESERVED`; they win over `effort`.

        What people write never becomes a control token: names of such tokens in a text are broken by a mark before
        the template sees them, and the mark is taken out of the plain text afterwards.
        """
        if tools and not self.capabilities.tools:
            with _nested_too_deeply():
                messages, tools = with_tools(messages, tools), ()
        texts: list[str] = []

        def note(text: str) -> str:
            texts.append(text)
            return text

        rendered = self._told(messages, effort, tools, variables, note)
        if not any(map(self._vocabulary.control.search, texts)):
            return self._vocabulary.encode_prompt(rendered)
        mark = _unused_character(texts)
        broken = self._told(messages, effort, tools, variables, lambda text: self._break(text, mark))
        return self._vocabulary.encode_prompt(broken, lambda text: text.replace(mark, ""))

    def _told(
        self,
        messages: Sequence[Message],
        effort: str | None,
        tools: Sequence[Tool],
        variables: Mapping[str, Any],
        clean: Clean,
    ) -> str:
        with _nested_too_deeply():
            functions = {"tools": tools_told(tools, clean)} if tools else {}
            more = variables_told(variables, clean)
        thinking = effort_told(effort, self.capabilities.efforts) if effort else {}
        turns = adapt_messages(messages, self.capabilities, clean, self.write_calls)
        return self._render(turns, **{**thinking, **more, **functions})

    def _break(self, text: str, mark: str) -> str:
        # Over and over: breaking one name may leave another (`<s<s>>`), but each turn puts in one mark more.
        while match := self._vocabulary.control.search(text):
            middle = match.start() + 1
            text = text[:middle] + mark + text[middle:]
        return text

    def _attempt(self, told: list[Turn], **variables: Any) -> str | None:
        try:
            return self._render(told, **variables)
        except TemplateError as error:
            if error.endless:
                raise
            return None

    def _render(self, told: list[Turn], **variables: Any) -> str:
        always = {"messages": told, "add_generation_prompt": True, "tools": None, "documents": None}
        try:
            return self._environment.render_template("chat", **{**always, **_family_variables(), **variables})
        except minijinja.TemplateError as error:
            if error.kind == "OutOfFuel":
                endless = TemplateError(f"the model's chat template {TOO_MUCH}")
                endless.endless = True
                raise endless from error
            raise TemplateError(f"the model's chat template refuses this conversation: {_first_line(error)}") from error
        except (_Refusal, *jinja.HELPER_ERRORS) as refusal:
            raise TemplateError(f"the model's chat template refuses this conversation: {refusal}") from refusal


@contextmanager
def _nested_too_deeply() -> Iterator[None]:
    try:
        yield
    except RecursionError as error:
        raise TemplateError("the parameters of a function are nested too deeply") from error


def _family_variables() -> dict[str, str]:
    """Variables that single families want (Firefunction): no functions, and the day, which leaves prefixes alike."""
    return {"functions": "[]", "datetime": _strftime_now("%Y-%m-%d")}


def _readable(source: str) -> str:
    return jinja.with_methods(_GENERATION.sub(_plain_tag, source))


def _plain_tag(tag: re.Match[str]) -> str:
    return f"{{%{tag[1]} {'endif' if tag[2] else 'if true'} {tag[3]}%}}"


class _Refusal(Exception):
    """What a template says with `raise_exception`."""


def _raise_exception(message: str) -> NoReturn:
    raise _Refusal(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _unused_character(texts: Sequence[str]) -> str:
    """A character in none of the texts: a Unicode noncharacter where possible (they mean nothing to anybody).

    Raises TemplateError.
    """
    present = set().union(*texts)
    candidates = itertools.chain(range(0xFDD0, 0xFDF0), range(0xE000, 0xF900), range(0xF0000, 0x110000))
    unused = next((chr(code) for code in candidates if chr(code) not in present), None)
    if unused is None:
        raise TemplateError("the conversation has every private character there is, and names of control tokens")
    return unused


def _first_line(error: minijinja.TemplateError) -> str:
    return str(error.detail or error).splitlines()[0]
