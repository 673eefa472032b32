"""Budget of one token, from the server's times and the client's (`--trace`)."""

from token_budget.budget import budget, budget_table

__all__ = ["budget", "budget_table"]
