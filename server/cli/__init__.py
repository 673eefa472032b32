"""Commands of `responsed`: serve, pull, models, tune."""

from server.cli.main import main

__all__ = [
    "main",
]
