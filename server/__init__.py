"""Serve the Responses API over HTTP. `__main__` is the command."""
