"""Recent prompts, and the place at which a new one differs from them. Imports `http`, `prompt`,
`protocol` and `store`."""

from server.prompt_comparison.prompt_comparisons import PromptComparisons

__all__ = [
    "PromptComparisons",
]
