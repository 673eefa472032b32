"""Model families that write each argument between tags. Data."""

from collections.abc import Sequence

from msgspec.structs import replace

from engine.dialects.dialect import Block, Dialect, ReasoningTags
from engine.notations import (
    CallFormat,
    Offered,
    Read,
    ReaderSteps,
    Scanner,
    Tags,
    element_arguments,
    element_spelling,
    elements,
    objects,
    tagged,
    tagged_arguments,
    tagged_spelling,
)


def _invoked(name: str, signatures: Sequence[str], prefix: str, around: str, attributes: str = "") -> Dialect:
    """Return a dialect with Anthropic's format, which several families use, each with its own prefix."""
    tags = Tags(
        begin=f'<{prefix}invoke name="',
        name_ends=(">",),
        end=(f"</{prefix}invoke>",),
        key=f'<{prefix}parameter name="',
        key_ends=">",
        value="",
        value_ends=f"</{prefix}parameter>",
    )
    parameter = f'<{prefix}parameter name="$key"{attributes}>$value</{prefix}parameter>'
    return Dialect(
        name,
        tuple(signatures),
        (Block(tags.begin, tagged(tags), reads_marker=True),),
        (f"<{around}>", f"</{around}>"),
        call_format=CallFormat(
            f'<{prefix}invoke name="$name">~$arguments~</{prefix}invoke>',
            (f"<{around}>", tags.begin),
            f"<{around}>~",
            end=f"~</{around}>",
            write=tagged_arguments(tags, parameter),
            spell=tagged_spelling(parameter, tags.ends),
        ),
    )


def _keyed(suffix: str = "") -> tuple[Read, CallFormat]:
    """Return reader and format of GLM's calls: the name, then keys and values in turn."""
    tags = Tags(
        begin="",
        name_ends=(f"<tool_sep{suffix}>", "\n") if suffix else ("\n",),
        end=(f"</tool_call{suffix}>",),
        key=f"<arg_key{suffix}>",
        key_ends=f"</arg_key{suffix}>",
        value=f"<arg_value{suffix}>",
        value_ends=f"</arg_value{suffix}>",
    )
    read_tags = tagged(tags)

    def read(scanner: Scanner, offered: Offered) -> ReaderSteps[None]:
        """Read a call in tags, or an object as in the generic format, which has the same marker."""
        yield from scanner.skip_space()
        yield from (objects if (yield from scanner.peek()) == "{" else read_tags)(scanner, offered)

    separator = f"<tool_sep{suffix}>" if suffix else ""
    parameter = f"<arg_key{suffix}>$key</arg_key{suffix}>~<arg_value{suffix}>$value</arg_value{suffix}>"
    call = f"<tool_call{suffix}>$name{separator}~$arguments~</tool_call{suffix}>"
    call_format = CallFormat(
        call,
        (f"<tool_call{suffix}>",),
        write=tagged_arguments(tags, parameter),
        spell=tagged_spelling(parameter, tags.ends),
    )
    return read, call_format


_CODER = Tags("<function=", (">",), ("</function>",), "<parameter=", ">", "", "</parameter>", padded=True)
"""`</tool_call>` ends no value: a text may contain it, and the grammar demands the end tags of a call."""
_MINICPM = Tags('<function name="', (">",), ("</function>",), '<param name="', ">", "", "</param>")
_MINICPM_PARAMETER = '<param name="$key">$value</param>'
_KIMI_3 = Tags(
    '<|open|>call tool="',
    ("<|sep|>",),
    ("<|close|>call<|sep|>",),
    '<|open|>argument key="',
    "<|sep|>",
    "",
    "<|close|>argument<|sep|>",
)
_KIMI_3_PARAMETER = '<|open|>argument key="$key" type="$type"<|sep|>$value<|close|>argument<|sep|>'
_READ_GLM, _GLM = _keyed()
_READ_HUNYUAN, _HUNYUAN = _keyed(":opensource")


_SEED = replace(_CODER, padded=False)
"""Tags directly around values, so that a line break before the end tag belongs to the value."""


def _coder(around: str, tags: Tags, parameter: str, python: bool = False) -> CallFormat:
    return CallFormat(
        f"<{around}>~<function=$name>~$arguments~</function>~</{around}>",
        (f"<{around}>", tags.begin),
        write=tagged_arguments(tags, parameter, python=python),
        spell=tagged_spelling(parameter, tags.ends, python),
    )


DSML = _invoked("deepseek-dsml", ("｜DSML｜",), "｜DSML｜", "｜DSML｜function_calls", ' string="$text"')
DSML_4 = _invoked("deepseek-dsml-4", ("｜DSML｜", "'tool_calls>"), "｜DSML｜", "｜DSML｜tool_calls", ' string="$text"')

KIMI_3 = Dialect(
    "kimi-3",
    ("open_tag('call', [('tool', fn.name)",),
    (Block(_KIMI_3.begin, tagged(_KIMI_3), reads_marker=True),),
    ("<|open|>tools<|sep|>", "<|close|>tools<|sep|>"),
    content_markers=(
        *(f"<|{what}|>{name}<|sep|>" for name in ("response", "message") for what in ("open", "close")),
        "<|end_of_msg|>",
    ),
    reasoning_tags=(ReasoningTags("<|open|>think<|sep|>", "<|close|>think<|sep|>"),),
    call_format=CallFormat(
        '<|open|>call tool="$name" index="$number"<|sep|>$arguments<|close|>call<|sep|>',
        ("<|open|>tools<|sep|>", _KIMI_3.begin),
        "<|open|>tools<|sep|>",
        end="<|close|>tools<|sep|>",
        answer="<|open|>response<|sep|>$answer<|close|>response<|sep|>",
        write=tagged_arguments(_KIMI_3, _KIMI_3_PARAMETER),
        spell=tagged_spelling(_KIMI_3_PARAMETER, _KIMI_3.ends),
    ),
)

HUNYUAN = Dialect(
    "hunyuan",
    (":opensource", "<arg_key{}>"),
    (Block("<tool_call:opensource>", _READ_HUNYUAN),),
    ("<tool_calls:opensource>", "</tool_call:opensource>", "</tool_calls:opensource>"),
    reasoning_tags=(ReasoningTags("<think:opensource>", "</think:opensource>"),),
    call_format=replace(
        _HUNYUAN,
        begin="<tool_calls:opensource>~",
        end="~</tool_calls:opensource>",
        markers=("<tool_calls:opensource>", *_HUNYUAN.markers),
    ),
)

GLM = Dialect(
    "glm", ("<arg_key>", "<tool_call>"), (Block("<tool_call>", _READ_GLM),), ("</tool_call>",), call_format=_GLM
)

CODER = Dialect(
    "coder",
    ("<function=", "<parameter="),
    (Block("<function=", tagged(_CODER), reads_marker=True),),
    ("<tool_call>", "</tool_call>", "<seed:tool_call>", "</seed:tool_call>"),
    call_format=_coder("tool_call", _CODER, "<parameter=$key>\n$value\n</parameter>"),
)
SEED = replace(
    CODER,
    name="seed",
    template_signatures=(*CODER.template_signatures, "<seed:tool_call>"),
    blocks=(Block("<function=", tagged(_SEED), reads_marker=True),),
    call_format=_coder("seed:tool_call", _SEED, "<parameter=$key>$value</parameter>", python=True),
)

MINIMAX = _invoked("minimax", ("<invoke name=", "<minimax:tool_call>"), "", "minimax:tool_call")

_MARK = "]<]minimax[>["
MINIMAX_3 = Dialect(
    "minimax-3",
    (_MARK, "<invoke name="),
    (Block(f'{_MARK}<invoke name="', elements(_MARK), reads_marker=True),),
    (f"{_MARK}<tool_call>", f"{_MARK}</tool_call>"),
    call_format=CallFormat(
        f'{_MARK}<invoke name="$name">$arguments</invoke>',
        (f"{_MARK}<tool_call>", f'{_MARK}<invoke name="'),
        f"{_MARK}<tool_call>~",
        end=f"~{_MARK}</tool_call>",
        write=element_arguments(_MARK),
        spell=element_spelling(_MARK),
    ),
)

_ATEM = _invoked("muse", (), "atem:", "atem:function_calls")


def _read_addressed(scanner: Scanner, offered: Offered) -> ReaderSteps[None]:
    """Read calls in a message to a function. In a message to the user, calls are quoted text."""
    before, after = _ATEM.ignored_markers
    yield from scanner.skip_space()
    yield from scanner.skip_literal(before)
    yield from _ATEM.blocks[0].read(scanner, offered)
    yield from scanner.skip_space()
    yield from scanner.skip_literal(after)


MUSE = replace(
    _ATEM,
    template_signatures=("<atem:invoke name=", "assistant to=self<|message|>"),
    blocks=(Block(" to=$name<|message|>", _read_addressed),),
    ignored_markers=("<|eom|><|start|>assistant", "<|eom|>"),
    content_markers=(" to=user<|message|>", "<|eom|><|start|>assistant to=user<|message|>"),
    reasoning_tags=(ReasoningTags(" to=self<|message|>", "<|eom|><|start|>assistant"),),
    call_format=replace(
        _ATEM.call_format,
        call=f" to=$name<|message|>{_ATEM.call_format.begin}{_ATEM.call_format.call}{_ATEM.call_format.end}",
        markers=(" to=$name<|message|>",),
        begin="",
        between="<|eom|><|start|>assistant",
        end="",
        answer=" to=user<|message|>$answer",
    ),
)

MINICPM = Dialect(
    "minicpm",
    ('<function name="',),
    (Block(_MINICPM.begin, tagged(_MINICPM), reads_marker=True),),
    call_format=CallFormat(
        '<function name="$name">~$arguments~</function>',
        (_MINICPM.begin,),
        write=tagged_arguments(_MINICPM, _MINICPM_PARAMETER, cdata=True, python=True),
        spell=tagged_spelling(_MINICPM_PARAMETER, (*_MINICPM.ends, "<![CDATA["), python=True),
    ),
)
