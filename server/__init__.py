"""The server: HTTP and the Responses API. `__main__` is the command, and the only place that wires the parts."""
