"""Commands of `responsed`; `main` lists them."""

from server.cli.main import main

__all__ = [
    "main",
]
