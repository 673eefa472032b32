"""Model families that write calls as Python does. Data."""

from msgspec.structs import replace

from engine.dialects.dialect import Block, Dialect
from engine.notations import CallFormat, Offered, ReaderSteps, Scanner, pythonic, pythonic_arguments, pythonic_spelling

LFM = Dialect(
    "lfm",
    ("List of tools: <|tool_list_start|>",),
    (Block("<|tool_call_start|>", pythonic()),),
    ("<|tool_call_end|>",),
    call_format=CallFormat(
        "$name($arguments)",
        ("<|tool_call_start|>",),
        "<|tool_call_start|>[",
        ",~",
        "]<|tool_call_end|>",
        write=pythonic_arguments,
        spell=pythonic_spelling,
    ),
)
LFM_2_5 = replace(LFM, name="lfm-2.5", template_signatures=("List of tools: ",), interrupts=False)
LIST = Dialect(
    "python-list",
    ("[func_name1(",),
    (Block("[$name(", pythonic(), reads_marker=True),),
    ("<|python_start|>", "<|python_end|>"),
    call_format=CallFormat(
        "$name($arguments)", ("[$name(",), "[", ",~", "]", write=pythonic_arguments, spell=pythonic_spelling
    ),
)
"""Llama 3.2 and 4, ToolACE and Gemma 3 if their templates ask for a list of calls, which has no other marker."""
OLMO = Dialect(
    "olmo",
    ("<function_calls>",),
    (Block("<function_calls>", pythonic("</function_calls>")),),
    ("</function_calls>",),
    call_format=CallFormat(
        "$name($arguments)",
        ("<function_calls>",),
        "<function_calls>~",
        "\n",
        "~</function_calls>",
        write=pythonic_arguments,
        spell=pythonic_spelling,
    ),
)


def _fenced(scanner: Scanner, offered: Offered) -> ReaderSteps[None]:
    """Read calls, with or without a Markdown fence around them."""
    yield from scanner.skip_space()
    fence = yield from scanner.skip_literal("```python")
    yield from pythonic("```" if fence else "<|tool_call_end|>")(scanner, offered)
    yield from scanner.skip_literal("```")


MINICPM_4 = Dialect(
    "minicpm-4",
    ("<|tool_call_start|>", "```python"),
    (Block("<|tool_call_start|>", _fenced),),
    ("<|tool_call_end|>",),
    call_format=CallFormat(
        "$name($arguments)",
        ("<|tool_call_start|>",),
        "<|tool_call_start|>\n```python\n",
        "\n",
        "\n```\n<|tool_call_end|>",
        write=pythonic_arguments,
        spell=pythonic_spelling,
    ),
)
"""MiniCPM 3 and 4."""
