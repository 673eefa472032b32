"""The model families that write each argument between tags. Data."""

from engine.dialect import Block, Dialect, Think
from engine.objects import Offered, Read, objects
from engine.parameters import Tags, tagged
from engine.scanner import Reading, Scanner


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
    read_tags = tagged(
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

    def read(scanner: Scanner, offered: Offered) -> Reading[None]:
        """Or an object: behind the same marker as in the generic form."""
        yield from scanner.space()
        yield from (objects if (yield from scanner.peek()) == "{" else read_tags)(scanner, offered)

    return read


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


DSML = Dialect(
    "deepseek-dsml",
    ("｜DSML｜",),
    _invoked("｜DSML｜"),
    tuple(f"<{slash}｜DSML｜{name}>" for name in ("function_calls", "tool_calls") for slash in ("", "/")),
)

KIMI_3 = Dialect(
    "kimi-3",
    ("open_tag('call', [('tool', fn.name)",),
    (Block(_KIMI_3.begin, tagged(_KIMI_3), keeps=True),),
    (
        *(f"<|{what}|>{name}<|sep|>" for name in ("tools", "response", "message") for what in ("open", "close")),
        "<|end_of_msg|>",
    ),
    thinks=(Think("<|open|>think<|sep|>", "<|close|>think<|sep|>"),),
)

HUNYUAN = Dialect(
    "hunyuan",
    (":opensource", "<arg_key{}>"),
    (Block("<tool_call:opensource>", _keyed_tags(":opensource")),),
    ("<tool_calls:opensource>", "</tool_call:opensource>", "</tool_calls:opensource>"),
    thinks=(Think("<think:opensource>", "</think:opensource>"),),
)

GLM = Dialect("glm", ("<arg_key>", "<tool_call>"), (Block("<tool_call>", _keyed_tags()),), ("</tool_call>",))

CODER = Dialect(
    "coder",
    ("<function=", "<parameter="),
    (Block("<function=", tagged(_CODER), keeps=True),),
    ("<tool_call>", "</tool_call>", "<seed:tool_call>", "</seed:tool_call>"),
)

MINIMAX = Dialect(
    "minimax",
    ("<invoke name=", "<minimax:tool_call>"),
    _invoked(""),
    ("<minimax:tool_call>", "</minimax:tool_call>"),
)

MINICPM = Dialect("minicpm", ('<function name="',), (Block(_MINICPM.begin, tagged(_MINICPM), keeps=True),))
