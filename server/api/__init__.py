"""The ASGI application, one module an endpoint. Imports every folder but `cli`."""

from server.api.app import App
from server.api.routes import store_limits

__all__ = [
    "App",
    "store_limits",
]
