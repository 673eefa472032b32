"""The model in the form of Codex CLI's catalog (`model_catalog_json`), which is not documented. Data only.

Without it Codex does not know the context length, and sends instructions of 17 kB. Fields that Codex 0.169 requires are
always present; the others are those with an effect on a local model.
"""

from msgspec import Struct

INSTRUCTIONS = """\
You are a coding agent in Codex CLI, on the user's computer. Work until the task is done, then say in a few sentences \
what you did.
- Read files and run commands with the tools. Look before you change something.
- Change only what the task needs, and keep to the style of the code around it.
- Check your work if there is a way, for example by the tests of the project.
- Never undo changes of the user. Ask before you do anything that cannot be undone."""
"""Instructions in place of Codex's own, which are too long for a small context."""
MAX_OUTPUT_TOKENS = 10_000
"""Tokens of a command's output that Codex sends, as for OpenAI's models; an eighth of a small context."""


class ReasoningLevel(Struct, frozen=True):
    effort: str
    description: str


LEVELS = (
    ReasoningLevel("low", "Up to 512 tokens of reasoning"),
    ReasoningLevel("medium", "Up to 2,048 tokens of reasoning"),
    ReasoningLevel("high", "As much reasoning as the model wants"),
)


class TruncationPolicy(Struct, frozen=True):
    """Limit of a tool's output."""

    limit: int
    mode: str = "tokens"


class CodexModel(Struct, frozen=True, kw_only=True):
    slug: str
    display_name: str
    description: str = "A local model, served by responsed."
    base_instructions: str = INSTRUCTIONS
    context_window: int
    auto_compact_token_limit: int
    """Tokens from which on Codex asks for a summary."""
    truncation_policy: TruncationPolicy
    default_reasoning_level: str | None = None
    supported_reasoning_levels: tuple[ReasoningLevel, ...]
    default_reasoning_summary: str = "none"
    supports_reasoning_summaries: bool
    support_verbosity: bool = False
    supports_parallel_tool_calls: bool = True
    input_modalities: tuple[str, ...] = ("text",)
    shell_type: str = "default"
    experimental_supported_tools: tuple[str, ...] = ()
    visibility: str = "list"
    supported_in_api: bool = True
    priority: int = 1


def codex_model(name: str, n_ctx: int, thinks: bool) -> CodexModel:
    """Return the entry of the model under one of its names."""
    return CodexModel(
        slug=name,
        display_name=name,
        context_window=n_ctx,
        auto_compact_token_limit=n_ctx * 3 // 4,
        truncation_policy=TruncationPolicy(min(MAX_OUTPUT_TOKENS, n_ctx // 8)),
        supported_reasoning_levels=LEVELS if thinks else (),
        supports_reasoning_summaries=thinks,
    )
