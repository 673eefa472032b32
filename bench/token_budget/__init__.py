"""Budget of one token, from the server's times and the client's (`--trace`)."""

from token_budget.budget import budget, budget_table
from token_budget.client_times import ClientTimes

__all__ = ["ClientTimes", "budget", "budget_table"]
