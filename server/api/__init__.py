"""The ASGI application, one module an endpoint. Imports every folder but `cli`."""

from server.api.app import App

__all__ = [
    "App",
]
