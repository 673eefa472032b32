"""Server of the Responses API over HTTP. `__main__` is the entry point of the command."""
