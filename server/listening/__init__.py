"""Addresses, certificates and limits of the listener, before the event loop runs. Imports `access` and `config`."""

from server.listening.certificates import CertificateError, tls_context
from server.listening.options import HTTPLimits, HTTPOptions, http_options
from server.listening.sockets import BindError, ExposedAddress, ListeningSockets, listening_sockets

__all__ = [
    "BindError",
    "CertificateError",
    "ExposedAddress",
    "HTTPLimits",
    "HTTPOptions",
    "ListeningSockets",
    "http_options",
    "listening_sockets",
    "tls_context",
]
