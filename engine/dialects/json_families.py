"""The model families that write a call as one JSON object. Data."""

from msgspec.structs import replace

from engine.dialects.dialect import Block, Dialect
from engine.dialects.python_families import LIST
from engine.notations import OBJECT, CallFormat, Offered, ReaderSteps, Scanner, keyed_objects, objects, objects_but

_WITH_ID = OBJECT.replace("$arguments", '$arguments«, "id": "$id"»')
"""Call with an id, which templates write that match outputs by id."""


def _objects(begin: str, end: str = "", call: str = OBJECT) -> CallFormat:
    """Return the format of objects in a list after a marker."""
    return CallFormat(call, (begin,), f"{begin}~[~", "~,~", f"~]{end and '~'}{end}", any_name=True)


HERMES = Dialect("hermes", ("<tool_call>",), (Block("<tool_call>", objects),), ("</tool_call>",))
TOOL_CALLS = Dialect(
    "tool-calls",
    ("<tool_calls>",),
    (Block("<tool_calls>", objects),),
    ("</tool_calls>",),
    call_format=CallFormat(OBJECT, ("<tool_calls>",), "<tool_calls>~", end="~</tool_calls>", any_name=True),
)
MISTRAL_LIST = Dialect(
    "mistral-list",
    ("[TOOL_CALLS]",),
    (Block("[TOOL_CALLS]", objects),),
    call_format=_objects("[TOOL_CALLS]", call=_WITH_ID),
    interrupts=False,
)
COHERE = Dialect(
    "cohere",
    ("<|START_ACTION|>",),
    (Block("<|START_ACTION|>", objects),),
    ("<|END_ACTION|>",),
    call_format=_objects(
        "<|START_ACTION|>",
        "<|END_ACTION|>",
        '{"tool_call_id": "$number", "tool_name": "$name", "parameters": $arguments}',
    ),
)
APERTUS = Dialect(
    "apertus",
    ("<|tools_prefix|>",),
    (Block("<|tools_prefix|>", keyed_objects),),
    ("<|tools_suffix|>",),
    call_format=_objects("<|tools_prefix|>", "<|tools_suffix|>", '{"$name": $arguments}'),
)
NEMOTRON = Dialect(
    "nemotron",
    ("<TOOLCALL>",),
    (Block("<TOOLCALL>", objects),),
    ("</TOOLCALL>",),
    call_format=_objects("<TOOLCALL>", "</TOOLCALL>"),
)
TOOL_CALLS_LIST = replace(
    TOOL_CALLS,
    name="tool-calls-list",
    template_signatures=("<tool_calls>[",),
    call_format=_objects("<tool_calls>", "</tool_calls>", _WITH_ID),
)
FUNCTOOLS = Dialect(
    "functools",
    ("functools[",),
    (Block("functools[", objects),),
    call_format=CallFormat(OBJECT, ("functools[",), "functools[~", "~,~", "~]", any_name=True),
)
GIGACHAT = Dialect(
    "gigachat",
    ("<|function_call|>",),
    (Block("<|function_call|>", objects),),
    call_format=CallFormat(f"<|function_call|>~{OBJECT}", ("<|function_call|>",), any_name=True),
)
GIGACHAT_3 = Dialect(
    "gigachat-3",
    ("'role': 'function call'", "<|role_sep|>"),
    (Block("<|message_sep|>\n\nfunction call<|role_sep|>", objects),),
    call_format=CallFormat(
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
    call_format=CallFormat(f"<|tool_call|>{OBJECT}<|/tool_call|>", ("<|tool_call|>",), any_name=True),
)
_NO_FUNCTION = "no_function"
GRANITE_20B = Dialect(
    "granite-20b",
    ("<function_call>",),
    (Block("<function_call>", objects_but(_NO_FUNCTION)),),
    call_format=CallFormat(f"<function_call>~{OBJECT}", ("<function_call>",), any_name=True, no_call=_NO_FUNCTION),
)
"""The template asks for a call of `no_function` if no function fits."""
GRANITE = Dialect(
    "granite", ("<|tool_call|>",), (Block("<|tool_call|>", objects),), call_format=_objects("<|tool_call|>")
)
XLAM = Dialect(
    "xlam",
    ('[{"name": "tool_call_name"',),
    allows_bare_json=True,
    call_format=CallFormat(OBJECT, (), "[~", "~,~", "~]", any_name=True),
)
LLAMA = Dialect(
    "llama",
    ("ipython", '"parameters"'),
    (Block("<|python_tag|>", objects),),
    allows_bare_json=True,
    call_format=CallFormat(
        OBJECT.replace("arguments", "parameters", 1),
        ("<|python_tag|>",),
        "<|python_tag|>",
        "~;~",
        any_name=True,
        marker_optional=True,
    ),
)


def _after_python(scanner: Scanner, offered: Offered) -> ReaderSteps[None]:
    """Read calls after `<|python_start|>`, with or without its closing marker before them. A list is left to its own
    reader."""
    yield from scanner.skip_literal("<|python_end|>")
    yield from scanner.skip_space()
    if (yield from scanner.peek()) == "{":
        yield from objects(scanner, offered)


LLAMA_4 = replace(
    LLAMA,
    name="llama-4",
    template_signatures=("<|python_start|>", '"parameters"'),
    blocks=(Block("<|python_start|>", _after_python), Block("<|python_end|>", objects), *LIST.blocks),
    call_format=replace(
        LLAMA.call_format,
        markers=("<|python_start|>",),
        begin="<|python_start|>«<|python_end|>»",
        between="~«;»~",
        end="«<|python_end|>»",
    ),
    alternatives=(replace(LLAMA.call_format, markers=("<|python_end|>",), begin="<|python_end|>"), LIST.call_format),
)
"""Llama 4 if its template asks for JSON, instead of the list that the model was trained on. The template writes both
markers before past calls."""

_ANSWER_DIRECTLY = "directly-answer"
"""Function of Command R+ that calls nothing."""


def _actions(scanner: Scanner, offered: Offered) -> ReaderSteps[None]:
    """Read a list of calls and the end of its Markdown fence."""
    yield from objects_but(_ANSWER_DIRECTLY)(scanner, offered)
    yield from scanner.skip_space()
    yield from scanner.skip_literal("```")


_ACTION = '{~"tool_name":~"$name",~"parameters":~$arguments~}'
_ACTION_MARKERS = ("Action:\n```json", "Action:```json")
COMMAND_R_PLUS = Dialect(
    "command-r-plus",
    ("Action:", "<|CHATBOT_TOKEN|>", _ANSWER_DIRECTLY),
    tuple(Block(marker, _actions) for marker in _ACTION_MARKERS),
    call_format=CallFormat(
        _ACTION,
        _ACTION_MARKERS[:1],
        f"{_ACTION_MARKERS[0]}~[~",
        "~,~",
        "~]~```",
        any_name=True,
        no_call=_ANSWER_DIRECTLY,
    ),
)
COMMAND_R_PLUS = replace(
    COMMAND_R_PLUS,
    alternatives=(replace(COMMAND_R_PLUS.call_format, markers=_ACTION_MARKERS[1:], begin=f"{_ACTION_MARKERS[1]}~[~"),),
)
