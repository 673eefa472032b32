"""Model families, and the detection of a template's family. Data.

A template contains its family's markers, since it renders past turns with them.
"""

from msgspec.structs import replace

from engine.dialects.dialect import Block, Dialect, ReasoningTags
from engine.dialects.json_families import (
    APERTUS,
    COHERE,
    COMMAND_R_PLUS,
    FUNCTOOLS,
    GIGACHAT,
    GIGACHAT_3,
    GRANITE,
    GRANITE_20B,
    HERMES,
    LLAMA,
    LLAMA_4,
    MISTRAL_LIST,
    NEMOTRON,
    PHI_4_MINI,
    TOOL_CALLS,
    TOOL_CALLS_LIST,
    XLAM,
)
from engine.dialects.named_families import (
    DEEPSEEK,
    DEEPSEEK_FENCED,
    FUNCTIONARY,
    FUNCTIONARY_3_2,
    GLM_4,
    HUNYUAN_DENSE,
    KIMI,
    MISTRAL,
    MISTRAL_IDS,
    SOLAR,
)
from engine.dialects.python_families import LFM, LFM_2_5, LIST, MINICPM_4, OLMO
from engine.dialects.tagged_families import (
    CODER,
    DSML,
    DSML_4,
    GLM,
    HUNYUAN,
    KIMI_3,
    MINICPM,
    MINIMAX,
    MINIMAX_3,
    MUSE,
    SEED,
)
from engine.dialects.wraps import wraps_in
from engine.notations import FUNCTION_GEMMA, GEMMA_4, GENERIC_FORMAT, CallFormat, gemma, gemma_arguments, gemma_spelling

GENERIC = Dialect("generic", (), HERMES.blocks, HERMES.ignored_markers, allows_bare_json=True)


def _with_generic_format(dialect: Dialect) -> Dialect:
    """Return the dialect with the generic format for calls that its own format can't write."""
    blocks = {block.open: block for block in (*GENERIC.blocks, *dialect.blocks)}
    ignored = dict.fromkeys((*GENERIC.ignored_markers, *dialect.ignored_markers))
    alternatives = (*dialect.alternatives, GENERIC_FORMAT)
    return replace(dialect, blocks=tuple(blocks.values()), ignored_markers=tuple(ignored), alternatives=alternatives)


HARMONY = Dialect(
    "harmony",
    ("<|channel|>", "<|message|>", "<|call|>"),
    generation_prefix="<|start|>assistant",
    channels=True,
    reasoning_tags=(ReasoningTags("<|channel|>analysis<|message|>", "<|end|><|start|>assistant"),),
    call_format=CallFormat(
        "<|channel|>commentary to=$place$name"
        "«<|channel|>commentary»« «<|constrain|>»json»<|message|>$arguments<|call|>",
        ("<|channel|>commentary to=",),
        alternative_openings=("<|channel|>analysis to=$place", "<|start|>assistant to=$place"),
        between=None,
        answer="<|channel|>final<|message|>$answer",
    ),
)


def _gemma(name: str, begin: str, end: str, quote: str) -> Dialect:
    call_format = CallFormat(
        f"{begin}call:$name$arguments{end}", (begin,), write=gemma_arguments(quote), spell=gemma_spelling(quote)
    )
    return Dialect(name, (begin, end), (Block(begin, gemma(quote)),), (end,), call_format=call_format)


_FAMILIES = (
    HARMONY,
    _gemma("gemma", "<|tool_call>", "<tool_call|>", GEMMA_4),
    _gemma("function-gemma", "<start_function_call>", "<end_function_call>", FUNCTION_GEMMA),
    DSML_4,
    DSML,
    DEEPSEEK_FENCED,
    DEEPSEEK,
    KIMI,
    KIMI_3,
    MISTRAL_IDS,
    MISTRAL,
    MISTRAL_LIST,
    LFM,
    LFM_2_5,
    LIST,
    OLMO,
    MINICPM_4,
    HUNYUAN,
    GLM,
    SEED,
    CODER,
    FUNCTIONARY,
    FUNCTIONARY_3_2,
    MINIMAX,
    MINIMAX_3,
    MUSE,
    MINICPM,
    COHERE,
    APERTUS,
    NEMOTRON,
    HUNYUAN_DENSE,
    TOOL_CALLS_LIST,
    TOOL_CALLS,
    FUNCTOOLS,
    SOLAR,
    GIGACHAT,
    GIGACHAT_3,
    PHI_4_MINI,
    GRANITE,
    GRANITE_20B,
    XLAM,
    COMMAND_R_PLUS,
    GLM_4,
    HERMES,
    LLAMA_4,
    LLAMA,
)

DIALECTS = tuple(each if each.channels else _with_generic_format(each) for each in _FAMILIES)
"""Dialects in the order of detection: the first one whose signatures all match is used."""

REASONING_TAGS = (
    ReasoningTags("<think>", "</think>"),
    ReasoningTags("<seed:think>", "</seed:think>"),
    ReasoningTags("<mm:think>", "</mm:think>"),
    ReasoningTags("[THINK]", "[/THINK]"),
    ReasoningTags("<|START_THINKING|>", "<|END_THINKING|>"),
    ReasoningTags("<|channel>thought", "<channel|>"),
    ReasoningTags("<|inner_prefix|>", "<|inner_suffix|>"),
    ReasoningTags("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
    ReasoningTags("<|think|>", "<|end|>"),
    ReasoningTags("<|thought_start|>", "<|thought_end|>"),
)
"""Tags that count if a template has both."""


def detect_dialect(template: str | None) -> Dialect:
    """Return the dialect of a chat template; GENERIC if the template has no calls."""
    template = template or ""
    found = next((each for each in DIALECTS if all(text in template for text in each.template_signatures)), GENERIC)
    thinks = tuple(think for think in REASONING_TAGS if think.open in template and think.close in template)
    return replace(found, reasoning_tags=(*found.reasoning_tags, *thinks), wraps=wraps_in(template))


def with_generic(dialect: Dialect) -> Dialect:
    """Return the dialect of a model whose functions are listed in a system message (`values.with_tools`)."""
    return replace(
        _with_generic_format(dialect),
        call_format=GENERIC_FORMAT,
        alternatives=(dialect.call_format, *dialect.alternatives),
        allows_bare_json=True,
    )
