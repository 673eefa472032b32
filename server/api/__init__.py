"""The ASGI application, one module for each endpoint."""

from server.api.app import App
from server.api.routes import store_limits

__all__ = [
    "App",
    "store_limits",
]
