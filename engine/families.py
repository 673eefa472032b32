"""The model families: how each writes calls and reasoning, by the markers that its own template has. Data.

Which one it is, the template tells: a family's markers stand in it, since it writes past turns with them.
"""

import re
from collections.abc import Sequence

from msgspec.structs import replace

from engine.dialect import Block, Dialect, Think
from engine.gemma import gemma
from engine.objects import keyed_objects, named, objects
from engine.parameter_writers import gemma_arguments, pythonic_arguments
from engine.parameters import pythonic
from engine.tagged_families import CODER, DSML, DSML_4, GLM, HUNYUAN, KIMI_3, MINICPM, MINIMAX, MINIMAX_3, MUSE, SEED
from engine.wraps import wraps_in
from engine.writers import GENERIC_FORM, OBJECT, Form


def _first(head: Sequence[str]) -> str:
    """`functions.name:0` is what Kimi calls `name`."""
    return re.sub(r":\d+$", "", head[0].strip().removeprefix("functions."))


def _addressed(head: Sequence[str]) -> str:
    return head[0].strip().removeprefix(">>>")


def _second(head: Sequence[str]) -> str:
    return head[1].strip() if len(head) > 1 else ""


def _deepseek(head: Sequence[str]) -> str:
    """`function<sep>name` and a fence of Markdown; later `name<sep>`."""
    name = head[1] if len(head) > 1 and head[0].strip() == "function" else head[0]
    return name.strip().partition("\n")[0].strip()


def _objects(begin: str, end: str = "", call: str = OBJECT) -> Form:
    """Objects in a list, with a marker before it."""
    return Form(call, (begin,), f"{begin}~[~", "~,~", f"~]{end and '~'}{end}", any_name=True)


HERMES = Dialect("hermes", ("<tool_call>",), (Block("<tool_call>", objects),), ("</tool_call>",))
_DEEPSEEK = Dialect(
    "deepseek",
    ("<｜tool▁calls▁begin｜>",),
    (Block("<｜tool▁call▁begin｜>", named(("<｜tool▁sep｜>",), _deepseek, ("<｜tool▁call▁end｜>",))),),
    ("<｜tool▁calls▁begin｜>", "\n```<｜tool▁call▁end｜>", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"),
    form=Form(
        "<｜tool▁call▁begin｜>$name<｜tool▁sep｜>$arguments<｜tool▁call▁end｜>",
        ("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"),
        "<｜tool▁calls▁begin｜>",
        end="<｜tool▁calls▁end｜>",
    ),
)
_FENCED = replace(
    _DEEPSEEK.form,
    call="<｜tool▁call▁begin｜>function<｜tool▁sep｜>$name\n```json\n$arguments\n```<｜tool▁call▁end｜>",
)
_MISTRAL = Dialect(
    "mistral",
    ("[TOOL_CALLS]", "[ARGS]"),
    (Block("[TOOL_CALLS]", named(("[CALL_ID]", "[ARGS]"), _first)),),
    form=Form("[TOOL_CALLS]$name[ARGS]$arguments", ("[TOOL_CALLS]",)),
    interrupts=False,
)
_LFM = Dialect(
    "lfm",
    ("List of tools: <|tool_list_start|>",),
    (Block("<|tool_call_start|>", pythonic),),
    ("<|tool_call_end|>",),
    form=Form(
        "$name($arguments)",
        ("<|tool_call_start|>",),
        "<|tool_call_start|>[",
        ",~",
        "]<|tool_call_end|>",
        write=pythonic_arguments,
    ),
)
_TOOL_CALLS = Dialect(
    "tool-calls",
    ("<tool_calls>",),
    (Block("<tool_calls>", objects),),
    ("</tool_calls>",),
    form=Form(OBJECT, ("<tool_calls>",), "<tool_calls>~", end="~</tool_calls>", any_name=True),
)
GENERIC = Dialect("generic", (), HERMES.blocks, HERMES.silent, bare=True)


def _reading_generic(dialect: Dialect) -> Dialect:
    """A call that can't be written as the family does is written in the generic form."""
    blocks = {block.open: block for block in (*GENERIC.blocks, *dialect.blocks)}
    silent = dict.fromkeys((*GENERIC.silent, *dialect.silent))
    also = (*dialect.also, GENERIC_FORM)
    return replace(dialect, blocks=tuple(blocks.values()), silent=tuple(silent), also=also)


_FAMILIES = (
    Dialect(
        "harmony",
        ("<|channel|>", "<|message|>", "<|call|>"),
        begun="<|start|>assistant",
        channels=True,
        thinks=(Think("<|channel|>analysis<|message|>", "<|end|><|start|>assistant"),),
        form=Form(
            "<|channel|>commentary to=$place$name <|constrain|>json<|message|>$arguments<|call|>",
            ("<|channel|>commentary to=",),
            others=("<|channel|>analysis to=$place", "<|start|>assistant to=$place"),
            between=None,
            answer="<|channel|>final<|message|>$answer",
        ),
    ),
    Dialect(
        "gemma",
        ("<|tool_call>", "<tool_call|>"),
        (Block("<|tool_call>", gemma),),
        ("<tool_call|>",),
        form=Form("<|tool_call>call:$name$arguments<tool_call|>", ("<|tool_call>",), write=gemma_arguments),
    ),
    DSML_4,
    DSML,
    replace(_DEEPSEEK, name="deepseek-fenced", signs=(*_DEEPSEEK.signs, "```json"), form=_FENCED),
    _DEEPSEEK,
    Dialect(
        "kimi",
        ("<|tool_call_argument_begin|>",),
        (Block("<|tool_call_begin|>", named(("<|tool_call_argument_begin|>",), _first, ("<|tool_call_end|>",))),),
        ("<|tool_calls_section_begin|>", "<|tool_call_end|>", "<|tool_calls_section_end|>"),
        form=Form(
            "<|tool_call_begin|>functions.$name:$number<|tool_call_argument_begin|>$arguments<|tool_call_end|>",
            ("<|tool_calls_section_begin|>", "<|tool_call_begin|>"),
            "<|tool_calls_section_begin|>",
            end="<|tool_calls_section_end|>",
        ),
    ),
    KIMI_3,
    replace(
        _MISTRAL,
        name="mistral-ids",
        signs=("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"),
        form=Form("[TOOL_CALLS]$name[CALL_ID]$id[ARGS]$arguments", ("[TOOL_CALLS]",)),
    ),
    _MISTRAL,
    Dialect(
        "mistral-list",
        ("[TOOL_CALLS]",),
        (Block("[TOOL_CALLS]", objects),),
        form=_objects("[TOOL_CALLS]"),
        interrupts=False,
    ),
    _LFM,
    replace(_LFM, name="lfm-2.5", signs=("List of tools: ",), interrupts=False),
    HUNYUAN,
    GLM,
    SEED,
    CODER,
    Dialect(
        "functionary",
        ("<function=", "</function>"),
        (Block("<function=", named((">",), _first, ("</function>",))),),
        ("</function>",),
        form=Form("<function=$name>$arguments</function>", ("<function=",)),
    ),
    Dialect(
        "functionary-3.2",
        (">>>all", ">>>${recipient}"),
        (Block(">>>$name\n", named(("\n",), _addressed), keeps=True),),
        begun=">>>",
        said=(">>>all\n",),
        form=Form(">>>$name\n$arguments", (">>>$name\n",), between="", answer="all\n$answer"),
    ),
    MINIMAX,
    MINIMAX_3,
    MUSE,
    MINICPM,
    Dialect(
        "cohere",
        ("<|START_ACTION|>",),
        (Block("<|START_ACTION|>", objects),),
        ("<|END_ACTION|>",),
        form=_objects(
            "<|START_ACTION|>",
            "<|END_ACTION|>",
            '{~"tool_call_id":~"$number",~"tool_name":~"$name",~"parameters":~$arguments~}',
        ),
    ),
    Dialect(
        "apertus",
        ("<|tools_prefix|>",),
        (Block("<|tools_prefix|>", keyed_objects),),
        ("<|tools_suffix|>",),
        form=_objects("<|tools_prefix|>", "<|tools_suffix|>", '{~"$name":~$arguments~}'),
    ),
    Dialect(
        "nemotron",
        ("<TOOLCALL>",),
        (Block("<TOOLCALL>", objects),),
        ("</TOOLCALL>",),
        form=_objects("<TOOLCALL>", "</TOOLCALL>"),
    ),
    replace(
        _TOOL_CALLS,
        name="tool-calls-list",
        signs=("<tool_calls>[",),
        form=_objects("<tool_calls>", "</tool_calls>"),
    ),
    _TOOL_CALLS,
    Dialect(
        "functools",
        ("functools[",),
        (Block("functools[", objects),),
        form=Form(OBJECT, ("functools[",), "functools[~", "~,~", "~]", any_name=True),
    ),
    Dialect(
        "solar",
        ("<|tool_call:args|>",),
        (
            Block(
                "<|tool_call:begin|>",
                named(("<|tool_call:name|>", "<|tool_call:args|>"), _second, ("<|tool_call:end|>",)),
            ),
        ),
        ("<|tool_calls|>", "<|tool_call:end|>", "<|calls|>"),
        said=("<|begin|>assistant", "<|content|>", "<|end|>"),
        form=Form(
            "<|tool_call:begin|>$id<|tool_call:name|>$name<|tool_call:args|>$arguments<|tool_call:end|>",
            ("<|tool_calls|>", "<|tool_call:begin|>"),
            "<|tool_calls|>",
            end="<|calls|>",
        ),
    ),
    Dialect(
        "gigachat",
        ("<|function_call|>",),
        (Block("<|function_call|>", objects),),
        form=Form(f"<|function_call|>~{OBJECT}", ("<|function_call|>",), any_name=True),
    ),
    Dialect(
        "gigachat-3",
        ("'role': 'function call'", "<|role_sep|>"),
        (Block("<|message_sep|>\n\nfunction call<|role_sep|>", objects),),
        form=Form(
            f"<|message_sep|>\n\nfunction call<|role_sep|>~{OBJECT}",
            ("<|message_sep|>\n\nfunction call<|role_sep|>",),
            any_name=True,
        ),
    ),
    Dialect("granite", ("<|tool_call|>",), (Block("<|tool_call|>", objects),), form=_objects("<|tool_call|>")),
    HERMES,
    Dialect(
        "llama",
        ("ipython", '"parameters"'),
        (Block("<|python_tag|>", objects),),
        bare=True,
        form=Form(
            OBJECT.replace("arguments", "parameters", 1),
            ("<|python_tag|>",),
            "<|python_tag|>",
            "~;~",
            any_name=True,
            unmarked=True,
        ),
    ),
)

DIALECTS = tuple(each if each.channels else _reading_generic(each) for each in _FAMILIES)
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
    return replace(found, thinks=(*found.thinks, *thinks), wraps=wraps_in(template))


def with_generic(dialect: Dialect) -> Dialect:
    """The same for a model that was told of functions in plain words (`manners.with_tools`)."""
    return replace(_reading_generic(dialect), form=GENERIC_FORM, also=(dialect.form, *dialect.also), bare=True)
