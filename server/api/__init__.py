"""The ASGI application, one module an endpoint. Imports every folder but `cli`."""
