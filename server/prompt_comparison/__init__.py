"""Recent prompts, and the place at which a new one differs.

Imports `generation`, `http`, `prompt`, `protocol` and `store`.
"""

from server.prompt_comparison.prompt_comparisons import Compared, PromptComparisons

__all__ = [
    "Compared",
    "PromptComparisons",
]
