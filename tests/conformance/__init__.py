"""Conformance with openai-python, OpenAPI and Open Responses."""
