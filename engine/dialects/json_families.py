"""The model families that write a call's arguments as JSON. Data."""

import re
from collections.abc import Sequence

from msgspec.structs import replace

from engine.dialects.dialect import Block, Dialect
from engine.notations import OBJECT, CallFormat, Offered, ReaderSteps, Scanner, keyed_objects, named_arguments, objects


def _name_of_first(head: Sequence[str]) -> str:
    """Return the name; Kimi writes `functions.name:0` for `name`."""
    return re.sub(r":\d+$", "", head[0].strip().removeprefix("functions."))


def _recipient(head: Sequence[str]) -> str:
    return head[0].strip().removeprefix(">>>")


def _name_of_second(head: Sequence[str]) -> str:
    return head[1].strip() if len(head) > 1 else ""


def _deepseek(head: Sequence[str]) -> str:
    """Return the name of `function<sep>name` and a Markdown fence, or of `name<sep>` in later versions."""
    name = head[1] if len(head) > 1 and head[0].strip() == "function" else head[0]
    return name.strip().partition("\n")[0].strip()


_WITH_ID = OBJECT.replace("$arguments", '$arguments«,~"id":~"$id"»')
"""Call with an id, which templates write that match outputs by id."""


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


def _objects(begin: str, end: str = "", call: str = OBJECT) -> CallFormat:
    """Return the format of objects in a list after a marker."""
    return CallFormat(call, (begin,), f"{begin}~[~", "~,~", f"~]{end and '~'}{end}", any_name=True)


HERMES = Dialect("hermes", ("<tool_call>",), (Block("<tool_call>", objects),), ("</tool_call>",))
DEEPSEEK = Dialect(
    "deepseek",
    ("<｜tool▁calls▁begin｜>",),
    (Block("<｜tool▁call▁begin｜>", named_arguments(("<｜tool▁sep｜>",), _deepseek, ("<｜tool▁call▁end｜>",))),),
    ("<｜tool▁calls▁begin｜>", "\n```<｜tool▁call▁end｜>", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"),
    form=CallFormat(
        "<｜tool▁call▁begin｜>$name<｜tool▁sep｜>$arguments<｜tool▁call▁end｜>",
        ("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"),
        "<｜tool▁calls▁begin｜>",
        end="<｜tool▁calls▁end｜>",
    ),
)
_FENCED = replace(
    DEEPSEEK.form,
    call="<｜tool▁call▁begin｜>function<｜tool▁sep｜>$name\n```json\n$arguments\n```<｜tool▁call▁end｜>",
)
MISTRAL = Dialect(
    "mistral",
    ("[TOOL_CALLS]", "[ARGS]"),
    (Block("[TOOL_CALLS]", named_arguments(("[CALL_ID]", "[ARGS]"), _name_of_first)),),
    form=CallFormat("[TOOL_CALLS]$name[ARGS]$arguments", ("[TOOL_CALLS]",)),
    interrupts=False,
)
TOOL_CALLS = Dialect(
    "tool-calls",
    ("<tool_calls>",),
    (Block("<tool_calls>", objects),),
    ("</tool_calls>",),
    form=CallFormat(OBJECT, ("<tool_calls>",), "<tool_calls>~", end="~</tool_calls>", any_name=True),
)
DEEPSEEK_FENCED = replace(
    DEEPSEEK, name="deepseek-fenced", template_signatures=(*DEEPSEEK.template_signatures, "```json"), form=_FENCED
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
    form=CallFormat(
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
    form=CallFormat("[TOOL_CALLS]$name[CALL_ID]$id[ARGS]$arguments", ("[TOOL_CALLS]",)),
)
MISTRAL_LIST = Dialect(
    "mistral-list",
    ("[TOOL_CALLS]",),
    (Block("[TOOL_CALLS]", objects),),
    form=_objects("[TOOL_CALLS]", call=_WITH_ID),
    interrupts=False,
)
FUNCTIONARY = Dialect(
    "functionary",
    ("<function=", "</function>"),
    (Block("<function=", named_arguments((">",), _name_of_first, ("</function>",))),),
    ("</function>",),
    form=CallFormat("<function=$name>$arguments</function>", ("<function=",)),
)
FUNCTIONARY_3_2 = Dialect(
    "functionary-3.2",
    (">>>all", ">>>${recipient}"),
    (Block(">>>$name\n", named_arguments(("\n",), _recipient), reads_marker=True),),
    generation_prefix=">>>",
    content_markers=(">>>all\n",),
    form=CallFormat(">>>$name\n$arguments", (">>>$name\n",), between="", answer="all\n$answer"),
)
COHERE = Dialect(
    "cohere",
    ("<|START_ACTION|>",),
    (Block("<|START_ACTION|>", objects),),
    ("<|END_ACTION|>",),
    form=_objects(
        "<|START_ACTION|>",
        "<|END_ACTION|>",
        '{~"tool_call_id":~"$number",~"tool_name":~"$name",~"parameters":~$arguments~}',
    ),
)
APERTUS = Dialect(
    "apertus",
    ("<|tools_prefix|>",),
    (Block("<|tools_prefix|>", keyed_objects),),
    ("<|tools_suffix|>",),
    form=_objects("<|tools_prefix|>", "<|tools_suffix|>", '{~"$name":~$arguments~}'),
)
NEMOTRON = Dialect(
    "nemotron",
    ("<TOOLCALL>",),
    (Block("<TOOLCALL>", objects),),
    ("</TOOLCALL>",),
    form=_objects("<TOOLCALL>", "</TOOLCALL>"),
)
TOOL_CALLS_LIST = replace(
    TOOL_CALLS,
    name="tool-calls-list",
    template_signatures=("<tool_calls>[",),
    form=_objects("<tool_calls>", "</tool_calls>", _WITH_ID),
)
HUNYUAN_DENSE = Dialect(
    "hunyuan-dense",
    ("<tool_calls>", "<tool_call>", "```json"),
    (Block("<tool_call>", _fenced),),
    ("<tool_calls>", "</tool_call>", "</tool_calls>"),
    form=CallFormat(
        "<tool_call>$name\n```json\n$arguments\n```</tool_call>",
        ("<tool_calls>", "<tool_call>"),
        "<tool_calls>~",
        end="~</tool_calls>",
    ),
)
FUNCTOOLS = Dialect(
    "functools",
    ("functools[",),
    (Block("functools[", objects),),
    form=CallFormat(OBJECT, ("functools[",), "functools[~", "~,~", "~]", any_name=True),
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
    form=CallFormat(
        "<|tool_call:begin|>$id<|tool_call:name|>$name<|tool_call:args|>$arguments<|tool_call:end|>",
        ("<|tool_calls|>", "<|tool_call:begin|>"),
        "<|tool_calls|>",
        end="<|calls|>",
    ),
)
GIGACHAT = Dialect(
    "gigachat",
    ("<|function_call|>",),
    (Block("<|function_call|>", objects),),
    form=CallFormat(f"<|function_call|>~{OBJECT}", ("<|function_call|>",), any_name=True),
)
GIGACHAT_3 = Dialect(
    "gigachat-3",
    ("'role': 'function call'", "<|role_sep|>"),
    (Block("<|message_sep|>\n\nfunction call<|role_sep|>", objects),),
    form=CallFormat(
        f"<|message_sep|>\n\nfunction call<|role_sep|>~{OBJECT}",
        ("<|message_sep|>\n\nfunction call<|role_sep|>",),
        any_name=True,
    ),
)
PHI_4_MINI = Dialect(
    "phi-4-mini",
    ("<|tool_call|>", "<|/tool_call|>"),
    (Block("<|tool_call|>", objects),),
    ("<|/tool_call|>",),
    form=CallFormat(f"<|tool_call|>{OBJECT}<|/tool_call|>", ("<|tool_call|>",), any_name=True),
)
_NO_FUNCTION = ' {"name": "no_function", "arguments": {}}'
GRANITE_20B = Dialect(
    "granite-20b",
    ("<function_call>",),
    (Block("<function_call>", objects),),
    (f"<function_call>{_NO_FUNCTION}",),
    form=CallFormat(f"<function_call>~{OBJECT}", ("<function_call>",), any_name=True, no_call=_NO_FUNCTION),
)
"""The template asks for a call of `no_function` if no function fits."""
GRANITE = Dialect("granite", ("<|tool_call|>",), (Block("<|tool_call|>", objects),), form=_objects("<|tool_call|>"))
XLAM = Dialect(
    "xlam",
    ('[{"name": "tool_call_name"',),
    allows_bare_json=True,
    form=CallFormat(OBJECT, (), "[~", "~,~", "~]", any_name=True),
)
LLAMA = Dialect(
    "llama",
    ("ipython", '"parameters"'),
    (Block("<|python_tag|>", objects),),
    allows_bare_json=True,
    form=CallFormat(
        OBJECT.replace("arguments", "parameters", 1),
        ("<|python_tag|>",),
        "<|python_tag|>",
        "~;~",
        any_name=True,
        marker_optional=True,
    ),
)
