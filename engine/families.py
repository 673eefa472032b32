"""The model families: how each writes calls and reasoning, by the markers that its own template has. Data.

Which one it is, the template tells: a family's markers stand in it, since it writes past turns with them.
"""

import re
from collections.abc import Sequence

from msgspec.structs import replace

from engine.dialect import Block, Dialect, Think
from engine.objects import Read, keyed_objects, named, objects
from engine.parameters import Tags, gemma, pythonic, tagged


def _first(head: Sequence[str]) -> str:
    """`functions.name:0` is what Kimi calls `name`."""
    return re.sub(r":\d+$", "", head[0].strip().removeprefix("functions."))


def _second(head: Sequence[str]) -> str:
    return head[1].strip() if len(head) > 1 else ""


def _deepseek(head: Sequence[str]) -> str:
    """`function<sep>name` and a fence of Markdown; later `name<sep>`."""
    name = head[1] if len(head) > 1 and head[0].strip() == "function" else head[0]
    return name.strip().partition("\n")[0].strip()


def _invoked(prefix: str) -> tuple[Block, ...]:
    """Anthropic's form, which several families have, each with a prefix of its own."""
    tags = Tags(
        begin=f'<{prefix}invoke name="',
        name_ends=(">",),
        end=(f"</{prefix}invoke>",),
        key=f'<{prefix}parameter name="',
        key_ends=">",
        value="",
        value_ends=f"</{prefix}parameter>",
    )
    return (Block(tags.begin, tagged(tags), keeps=True),)


def _keyed_tags(suffix: str = "") -> Read:
    """GLM's: the name, then keys and values in turn."""
    return tagged(
        Tags(
            begin="",
            name_ends=(f"<tool_sep{suffix}>", "\n") if suffix else ("\n",),
            end=(f"</tool_call{suffix}>",),
            key=f"<arg_key{suffix}>",
            key_ends=f"</arg_key{suffix}>",
            value=f"<arg_value{suffix}>",
            value_ends=f"</arg_value{suffix}>",
        )
    )


_CODER = Tags("<function=", (">",), ("</function>",), "<parameter=", ">", "", "</parameter>", padded=True)
_MINICPM = Tags('<function name="', (">",), ("</function>",), '<param name="', ">", "", "</param>")
_KIMI_3 = Tags(
    '<|open|>call tool="',
    ("<|sep|>",),
    ("<|close|>call<|sep|>",),
    '<|open|>argument key="',
    "<|sep|>",
    "",
    "<|close|>argument<|sep|>",
)

HERMES = Dialect("hermes", ("<tool_call>",), (Block("<tool_call>", objects),), ("</tool_call>",))
GENERIC = Dialect("generic", (), HERMES.blocks, HERMES.silent, bare=True)

DIALECTS = (
    Dialect("harmony", ("<|channel|>", "<|message|>", "<|call|>"), channels=True),
    Dialect("gemma", ("<|tool_call>", "<tool_call|>"), (Block("<|tool_call>", gemma),), ("<tool_call|>",)),
    Dialect(
        "deepseek-dsml",
        ("｜DSML｜",),
        _invoked("｜DSML｜"),
        tuple(f"<{slash}｜DSML｜{name}>" for name in ("function_calls", "tool_calls") for slash in ("", "/")),
    ),
    Dialect(
        "deepseek",
        ("<｜tool▁calls▁begin｜>",),
        (Block("<｜tool▁call▁begin｜>", named(("<｜tool▁sep｜>",), _deepseek, ("<｜tool▁call▁end｜>",))),),
        ("<｜tool▁calls▁begin｜>", "\n```<｜tool▁call▁end｜>", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"),
    ),
    Dialect(
        "kimi",
        ("<|tool_call_argument_begin|>",),
        (Block("<|tool_call_begin|>", named(("<|tool_call_argument_begin|>",), _first, ("<|tool_call_end|>",))),),
        ("<|tool_calls_section_begin|>", "<|tool_call_end|>", "<|tool_calls_section_end|>"),
    ),
    Dialect(
        "kimi-3",
        ("open_tag('call', [('tool', fn.name)",),
        (Block(_KIMI_3.begin, tagged(_KIMI_3), keeps=True),),
        (
            *(f"<|{what}|>{name}<|sep|>" for name in ("tools", "response", "message") for what in ("open", "close")),
            "<|end_of_msg|>",
        ),
        thinks=(Think("<|open|>think<|sep|>", "<|close|>think<|sep|>"),),
    ),
    Dialect(
        "mistral",
        ("[TOOL_CALLS]", "[ARGS]"),
        (Block("[TOOL_CALLS]", named(("[CALL_ID]", "[ARGS]"), _first)),),
    ),
    Dialect("mistral-list", ("[TOOL_CALLS]",), (Block("[TOOL_CALLS]", objects),)),
    Dialect("lfm", ("List of tools: ",), (Block("<|tool_call_start|>", pythonic),), ("<|tool_call_end|>",)),
    Dialect(
        "hunyuan",
        (":opensource", "<arg_key{}>"),
        (Block("<tool_call:opensource>", _keyed_tags(":opensource")),),
        ("<tool_calls:opensource>", "</tool_call:opensource>", "</tool_calls:opensource>"),
        thinks=(Think("<think:opensource>", "</think:opensource>"),),
    ),
    Dialect("glm", ("<arg_key>", "<tool_call>"), (Block("<tool_call>", _keyed_tags()),), ("</tool_call>",)),
    Dialect(
        "coder",
        ("<function=", "<parameter="),
        (Block("<function=", tagged(_CODER), keeps=True),),
        ("<tool_call>", "</tool_call>", "<seed:tool_call>", "</seed:tool_call>"),
    ),
    Dialect(
        "functionary",
        ("<function=", "</function>"),
        (Block("<function=", named((">",), _first, ("</function>",))),),
        ("</function>",),
    ),
    Dialect(
        "minimax",
        ("<invoke name=", "<minimax:tool_call>"),
        _invoked(""),
        ("<minimax:tool_call>", "</minimax:tool_call>"),
    ),
    Dialect("minicpm", ('<function name="',), (Block(_MINICPM.begin, tagged(_MINICPM), keeps=True),)),
    Dialect(
        "cohere",
        ("<|START_ACTION|>",),
        (Block("<|START_ACTION|>", objects),),
        ("<|END_ACTION|>",),
    ),
    Dialect("apertus", ("<|tools_prefix|>",), (Block("<|tools_prefix|>", keyed_objects),), ("<|tools_suffix|>",)),
    Dialect("nemotron", ("<TOOLCALL>",), (Block("<TOOLCALL>", objects),), ("</TOOLCALL>",)),
    Dialect("tool-calls", ("<tool_calls>",), (Block("<tool_calls>", objects),), ("</tool_calls>",)),
    Dialect("functools", ("functools[",), (Block("functools[", objects),)),
    Dialect(
        "solar",
        ("<|tool_call:args|>",),
        (
            Block(
                "<|tool_call:begin|>",
                named(("<|tool_call:name|>", "<|tool_call:args|>"), _second, ("<|tool_call:end|>",)),
            ),
        ),
        ("<|tool_calls|>", "<|tool_call:end|>", "<|calls|>", "<|begin|>assistant", "<|content|>", "<|end|>"),
    ),
    Dialect("gigachat", ("<|function_call|>",), (Block("<|function_call|>", objects),)),
    Dialect(
        "gigachat-3",
        ("'role': 'function call'", "<|role_sep|>"),
        (Block("<|message_sep|>\n\nfunction call<|role_sep|>", objects),),
    ),
    Dialect("granite", ("<|tool_call|>",), (Block("<|tool_call|>", objects),)),
    HERMES,
    Dialect("llama", ("ipython", '"parameters"'), (Block("<|python_tag|>", objects),), bare=True),
)
"""The first one whose signs are all there is taken."""

THINKS = (
    Think("<think>", "</think>"),
    Think("<seed:think>", "</seed:think>"),
    Think("<mm:think>", "</mm:think>"),
    Think("[THINK]", "[/THINK]"),
    Think("<|START_THINKING|>", "<|END_THINKING|>"),
    Think("<|channel>thought", "<channel|>"),
    Think("<|inner_prefix|>", "<|inner_suffix|>"),
    Think("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
    Think("<|think|>", "<|end|>"),
)


def spoken_by(template: str | None) -> Dialect:
    """The dialect of a chat template; GENERIC where it has no calls."""
    template = template or ""
    found = next((each for each in DIALECTS if all(sign in template for sign in each.signs)), GENERIC)
    thinks = tuple(think for think in THINKS if think.open in template and think.close in template)
    return replace(found, thinks=(*found.thinks, *thinks))


def with_generic(dialect: Dialect) -> Dialect:
    """The same for a model that was told of functions in plain words (`manners.with_tools`)."""
    blocks = {block.open: block for block in (*GENERIC.blocks, *dialect.blocks)}
    return replace(dialect, blocks=tuple(blocks.values()), silent=(*GENERIC.silent, *dialect.silent), bare=True)
