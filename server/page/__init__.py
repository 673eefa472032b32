"""The status page: one HTML file that uses the public API. Imports `http`."""

from server.page.status_page import StatusPage

__all__ = ["StatusPage"]
