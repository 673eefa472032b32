"""The model families that write a function's name before its arguments in JSON. Data."""

import re
from collections.abc import Sequence

from msgspec.structs import replace

from engine.dialects.dialect import Block, Dialect
from engine.notations import CallFormat, Offered, ReaderSteps, Scanner, named_arguments, objects


def _name_of_first(head: Sequence[str]) -> str:
    """Return the name; Kimi writes `functions.name:0` for `name`."""
    return re.sub(r":\d+$", "", head[0].strip().removeprefix("functions."))


def _recipient(head: Sequence[str]) -> str:
    return head[0].strip().removeprefix(">>>")


def _first_word(head: Sequence[str]) -> str:
    return head[0].strip().removeprefix("<|assistant|>").strip()


def _name_of_second(head: Sequence[str]) -> str:
    return head[1].strip() if len(head) > 1 else ""


def _deepseek(head: Sequence[str]) -> str:
    """Return the name of `function<sep>name` and a Markdown fence, or of `name<sep>` in later versions."""
    name = head[1] if len(head) > 1 and head[0].strip() == "function" else head[0]
    return name.strip().partition("\n")[0].strip()


def _first_line(head: Sequence[str]) -> str:
    """Return the name before a line break and the start of a fence."""
    return head[0].strip().partition("\n")[0].strip()


def _fenced(scanner: Scanner, offered: Offered) -> ReaderSteps[None]:
    """Read `name` and a Markdown fence, or an object as in the generic format, which has the same marker."""
    yield from scanner.skip_space()
    is_object = (yield from scanner.peek()) == "{"
    yield from (objects if is_object else named_arguments((), _first_line, ("</tool_call>",)))(scanner, offered)
    yield from scanner.skip_space()
    yield from scanner.skip_literal("```")


DEEPSEEK = Dialect(
    "deepseek",
    ("<｜tool▁calls▁begin｜>",),
    (Block("<｜tool▁call▁begin｜>", named_arguments(("<｜tool▁sep｜>",), _deepseek, ("<｜tool▁call▁end｜>",))),),
    ("<｜tool▁calls▁begin｜>", "\n```<｜tool▁call▁end｜>", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"),
    call_format=CallFormat(
        "<｜tool▁call▁begin｜>$name<｜tool▁sep｜>$arguments<｜tool▁call▁end｜>",
        ("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"),
        "<｜tool▁calls▁begin｜>",
        end="<｜tool▁calls▁end｜>",
    ),
)
_FENCED = replace(
    DEEPSEEK.call_format,
    call="<｜tool▁call▁begin｜>function<｜tool▁sep｜>$name\n```json\n$arguments\n```<｜tool▁call▁end｜>",
)
MISTRAL = Dialect(
    "mistral",
    ("[TOOL_CALLS]", "[ARGS]"),
    (Block("[TOOL_CALLS]", named_arguments(("[CALL_ID]", "[ARGS]"), _name_of_first)),),
    call_format=CallFormat("[TOOL_CALLS]$name[ARGS]$arguments", ("[TOOL_CALLS]",)),
    interrupts=False,
)
DEEPSEEK_FENCED = replace(
    DEEPSEEK,
    name="deepseek-fenced",
    template_signatures=(*DEEPSEEK.template_signatures, "```json"),
    call_format=_FENCED,
)
KIMI = Dialect(
    "kimi",
    ("<|tool_call_argument_begin|>",),
    (
        Block(
            "<|tool_call_begin|>",
            named_arguments(("<|tool_call_argument_begin|>",), _name_of_first, ("<|tool_call_end|>",)),
        ),
    ),
    ("<|tool_calls_section_begin|>", "<|tool_call_end|>", "<|tool_calls_section_end|>"),
    call_format=CallFormat(
        "<|tool_call_begin|>functions.$name:$number<|tool_call_argument_begin|>$arguments<|tool_call_end|>",
        ("<|tool_calls_section_begin|>", "<|tool_call_begin|>"),
        "<|tool_calls_section_begin|>",
        end="<|tool_calls_section_end|>",
    ),
)
MISTRAL_IDS = replace(
    MISTRAL,
    name="mistral-ids",
    template_signatures=("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"),
    call_format=CallFormat("[TOOL_CALLS]$name[CALL_ID]$id[ARGS]$arguments", ("[TOOL_CALLS]",)),
)
FUNCTIONARY = Dialect(
    "functionary",
    ("<function=", "</function>"),
    (Block("<function=", named_arguments((">",), _name_of_first, ("</function>",))),),
    ("</function>",),
    call_format=CallFormat("<function=$name>$arguments</function>", ("<function=",)),
)
FUNCTIONARY_3_2 = Dialect(
    "functionary-3.2",
    (">>>all", ">>>${recipient}"),
    (Block(">>>$name\n", named_arguments(("\n",), _recipient), reads_marker=True),),
    generation_prefix=">>>",
    content_markers=(">>>all\n",),
    call_format=CallFormat(">>>$name\n$arguments", (">>>$name\n",), between="", answer="all\n$answer"),
)
HUNYUAN_DENSE = Dialect(
    "hunyuan-dense",
    ("<tool_calls>", "<tool_call>", "```json"),
    (Block("<tool_call>", _fenced),),
    ("<tool_calls>", "</tool_call>", "</tool_calls>"),
    call_format=CallFormat(
        "<tool_call>$name\n```json\n$arguments\n```</tool_call>",
        ("<tool_calls>", "<tool_call>"),
        "<tool_calls>~",
        end="~</tool_calls>",
    ),
)
SOLAR = Dialect(
    "solar",
    ("<|tool_call:args|>",),
    (
        Block(
            "<|tool_call:begin|>",
            named_arguments(("<|tool_call:name|>", "<|tool_call:args|>"), _name_of_second, ("<|tool_call:end|>",)),
        ),
    ),
    ("<|tool_calls|>", "<|tool_call:end|>", "<|calls|>"),
    content_markers=("<|begin|>assistant", "<|content|>", "<|end|>"),
    call_format=CallFormat(
        "<|tool_call:begin|>$id<|tool_call:name|>$name<|tool_call:args|>$arguments<|tool_call:end|>",
        ("<|tool_calls|>", "<|tool_call:begin|>"),
        "<|tool_calls|>",
        end="<|calls|>",
    ),
)
_GLM_4 = CallFormat("<|assistant|>$name\n$arguments", ("<|assistant|>$name\n",), between=None)
_GLM_4_SPACED = replace(_GLM_4, call="<|assistant|>$name \n$arguments", markers=("<|assistant|>$name \n",))
GLM_4 = Dialect(
    "glm-4",
    ("<|observation|>", "metadata"),
    tuple(
        Block(marker, named_arguments(("\n",), _first_word, ()), reads_marker=True)
        for marker in (*_GLM_4.markers, *_GLM_4_SPACED.markers)
    ),
    generation_prefix="<|assistant|>",
    content_markers=("<|assistant|>\n",),
    call_format=_GLM_4,
    alternatives=(_GLM_4_SPACED,),
)
"""GLM-4 up to 0414: a message that is a call begins with the function's name. Its template writes a space after it."""
