"""Turn chat messages into prompt tokens with the model's own template, and choose the parser of the answer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from msgspec.structs import replace

from engine.chat_template.capabilities import TemplateCapabilities
from engine.chat_template.capability_probe import detect_capabilities, reads_back
from engine.chat_template.compiled_template import CompiledTemplate, TemplateEndless, TemplateError
from engine.chat_template.efforts import effort_variables
from engine.chat_template.jinja import METHOD
from engine.chat_template.message import Message, Tool
from engine.chat_template.past_calls import calls_writer
from engine.chat_template.rendering import adapt_messages
from engine.chat_template.values import Clean, WriteCalls, clean_variables, tool_variables, with_tools
from engine.dialects import Dialect, Parser, ReasoningTags, detect_dialect, with_generic
from engine.notations import Offered, marks
from engine.tokenizer import TokenBound, Vocabulary, no_bound

NONCHARACTER = "\ufdd0"
"""First candidate for a mark: Unicode reserves it for uses inside a program."""

TAIL_TOKENS = 24
"""Number of tokens at a prompt's end that are searched for an opening marker of reasoning."""

NO_VARIABLES: Mapping[str, Any] = {}
RESERVED = frozenset(
    (
        *("messages", "tools", "functions", "datetime", "add_generation_prompt", "bos_token", "eos_token"),
        *("raise_exception", "strftime_now", "dict", "namespace", "range", "chat_template", "tokenize"),
        *("continue_final_message", "return_dict", "return_tensors", METHOD),
    )
)
"""Names that the server or the template engine sets, and arguments of transformers' `apply_chat_template`."""


class ChatTemplate:
    """The model's chat template, with the vocabulary that encodes its text."""

    def __init__(self, source: str | None, vocabulary: Vocabulary) -> None:
        """Compile a template. Without `source`, or if it is blank, the prompt is the plain texts. Raises
        TemplateError."""
        self._compiled = CompiledTemplate(source, vocabulary)
        self._vocabulary = vocabulary
        self.dialect = detect_dialect(source)
        """Dialect of the model's answers."""
        self._control_marks = marks(vocabulary.control_ids)
        self.marks = {vocabulary.control_ids[name]: mark for name, mark in self._control_marks.items()}
        """Control token -> the character that stands for it in texts for `Parser.feed`."""

    @cached_property
    def capabilities(self) -> TemplateCapabilities:
        """Return the template's capabilities. Its format of calls counts only if the dialect reads it."""
        detected = self._detected
        is_known = reads_back(self._compiled.try_render, detected, self.dialect)
        return detected if is_known else replace(detected, tools=False, call_fields=None)

    @cached_property
    def _detected(self) -> TemplateCapabilities:
        """Detect capabilities at first use: `engine.loader.probe` first renders the template in a child process."""
        return detect_capabilities(self._compiled.try_render, self.dialect)

    @property
    def unread(self) -> bool:
        """True if the template lists functions, but no family has its format of calls."""
        return self._detected.tools and not self.capabilities.tools

    @property
    def tool_dialect(self) -> Dialect:
        """Return the dialect of answers with calls: the template's own, or the generic one."""
        capabilities = self.capabilities
        is_own = capabilities.tools or (capabilities.call_fields is not None and self.dialect.template_signatures)
        return self.dialect if is_own else with_generic(self.dialect)

    @cached_property
    def write_calls(self) -> WriteCalls | None:
        """Return the writer of past calls for a template that renders none."""
        return calls_writer(self.tool_dialect)

    def parser(self, prompt: Sequence[int], offered: Offered | None = None, bare: bool = True) -> Parser | None:
        """Return a parser for the answer to `prompt`; None if the answer can only be text.

        `offered` are the functions that the model may call. `bare`: see Parser.
        """
        dialect = self.tool_dialect if offered else self.dialect
        if dialect.plain and not offered:
            return None
        return Parser(dialect, offered, self._control_marks, self.thinking(prompt), bare)

    def thinking(self, prompt: Sequence[int]) -> ReasoningTags | None:
        """Return the reasoning that the end of the prompt has opened; None if it has opened none."""
        if not self.dialect.reasoning_tags:
            return None
        vocabulary = self._vocabulary
        last = b"".join(vocabulary.bytes_of(id_) or vocabulary.name_of(id_).encode() for id_ in prompt[-TAIL_TOKENS:])
        text = last.decode(errors="replace").rstrip()
        return next((think for think in self.dialect.reasoning_tags if text.endswith(think.open)), None)

    def prompt(
        self,
        messages: Sequence[Message],
        effort: str | None = None,
        tools: Sequence[Tool] = (),
        variables: Mapping[str, Any] = NO_VARIABLES,
        bound: TokenBound = no_bound,
    ) -> list[int]:
        """Return the prompt's tokens, up to the beginning of the assistant's answer. Raises TemplateError.

        `effort` is the reasoning effort in the API's words; None leaves the template's default. `tools` are the
        functions that the model may call. `variables` are further template variables, none of `RESERVED`; they
        override `effort`. `bound`: see `Vocabulary.encode_prompt`.

        Texts of users never become control tokens: a mark breaks the names of such tokens before the template sees
        them, and is removed from the plain text afterwards.
        """
        if tools and not self.capabilities.tools:
            messages, tools = self._with_tools(messages, tools), ()
        try:
            return self._prompt(messages, effort, tools, variables, bound)
        except TemplateEndless:
            raise
        except TemplateError:  # some templates need fields that schemas may lack (Command R+)
            if not tools or self.write_calls is None:
                raise
            return self._prompt(self._with_tools(messages, tools), effort, (), variables, bound)

    def render(self, messages: Sequence[Message]) -> str:
        """Return the prompt's text: what the template renders, without encoding it. Raises TemplateError."""
        return self._rendered(messages, None, (), NO_VARIABLES, str)

    def _with_tools(self, messages: Sequence[Message], tools: Sequence[Tool]) -> Sequence[Message]:
        with _nested_too_deeply():
            return with_tools(messages, tools, self.write_calls)

    def _prompt(
        self,
        messages: Sequence[Message],
        effort: str | None,
        tools: Sequence[Tool],
        variables: Mapping[str, Any],
        bound: TokenBound,
    ) -> list[int]:
        texts: list[str] = []

        def collect(text: str) -> str:
            texts.append(text)
            return text

        rendered = self._rendered(messages, effort, tools, variables, collect)
        if not any(map(self._vocabulary.control.search, texts)):
            return self._vocabulary.encode_prompt(rendered, bound=bound)
        mark = _unused_character(texts)
        broken = self._rendered(messages, effort, tools, variables, lambda text: self._break(text, mark))
        return self._vocabulary.encode_prompt(broken, lambda text: text.replace(mark, ""), bound)

    def _rendered(
        self,
        messages: Sequence[Message],
        effort: str | None,
        tools: Sequence[Tool],
        variables: Mapping[str, Any],
        clean: Clean,
    ) -> str:
        with _nested_too_deeply():
            functions = tool_variables(tools, clean) if tools else {}
            more = clean_variables(variables, clean)
        thinking = effort_variables(effort, self.capabilities.efforts) if effort else {}
        turns = adapt_messages(messages, self.capabilities, clean, self.write_calls)
        return self._compiled.render(turns, **{**thinking, **more, **functions})

    def _break(self, text: str, mark: str) -> str:
        # Names may overlap, and a pass breaks only the first of them, so repeat until none is left.
        while self._vocabulary.control.search(text):
            text = self._vocabulary.control.sub(lambda name: name[0][:1] + mark + name[0][1:], text)
        return text


@contextmanager
def _nested_too_deeply() -> Iterator[None]:
    try:
        yield
    except RecursionError as error:
        raise TemplateError("the parameters of a function are nested too deeply") from error


def _unused_character(texts: Sequence[str]) -> str:
    """Return a character that occurs in none of the texts: a Unicode noncharacter if possible. Raises TemplateError."""
    if not any(NONCHARACTER in text for text in texts):
        return NONCHARACTER
    present = set().union(*texts)
    candidates = itertools.chain(range(0xFDD0, 0xFDF0), range(0xE000, 0xF900), range(0xF0000, 0x110000))
    unused = next((chr(code) for code in candidates if chr(code) not in present), None)
    if unused is None:
        raise TemplateError("the conversation has every private-use character and names of control tokens: remove one")
    return unused
