"""Readers and grammar writers of tool calls, one syntax each. Imports `grammar` and `json_schema`."""
