"""The certificate of encrypted connections, over the standard library's `ssl`."""

import os
import ssl
from pathlib import Path

PROTOCOLS = ["http/1.1"]
"""Protocols offered by ALPN (RFC 7301)."""


class CertificateError(Exception):
    """The certificate or its key cannot be used. The message is one sentence that names the file."""


def tls_context(certfile: Path, keyfile: Path | None = None) -> ssl.SSLContext:
    """Return the server side of TLS 1.2 and later. The certificate's file may have the key too.

    Raises CertificateError.
    """
    keyed = keyfile or certfile
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(PROTOCOLS)
    try:
        context.load_cert_chain(certfile, keyed, _no_password)
        if os.stat(keyed).st_mode & 0o007:
            raise CertificateError(f"{keyed} can be read by other users: run `chmod o= {keyed}`")
    except _Encrypted as error:
        raise CertificateError(f"{keyed} is encrypted: store the key without a password") from error
    except ssl.SSLError as error:
        if keyfile is None:
            message = f"{certfile} is not a PEM certificate with its private key: name the key with --ssl-keyfile"
            raise CertificateError(message) from error
        raise CertificateError(f"{certfile} and {keyed} are not a PEM certificate and its private key") from error
    except OSError as error:
        flag, missing = ("--ssl-keyfile", keyed) if os.access(certfile, os.R_OK) else ("--ssl-certfile", certfile)
        raise CertificateError(f"{flag}: {missing} cannot be read: {error.strerror}") from error
    return context


class _Encrypted(Exception):
    """The key needs a password."""


def _no_password() -> str:
    """Refuse the password that OpenSSL would ask for on the terminal."""
    raise _Encrypted
