"""Listening sockets: TCP addresses, unix sockets, and sockets that systemd has opened."""

import errno
import ipaddress
import os
import socket
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

UNACKNOWLEDGED_MILLISECONDS = 30_000
"""Milliseconds until a client that acknowledges no byte counts as disconnected (TCP_USER_TIMEOUT, tcp(7))."""
INHERITED_OPTIONS = (
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MILLISECONDS),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),  # probes a silent client, which waits for an answer in one piece
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
)
"""Options that connections inherit from their listener (Linux), so that a client without power or network is noticed
too."""
UNIX_PREFIX = "unix:"
"""Beginning of a host that is a path."""
UNIX_MODE = 0o660
"""Mode of a unix socket: its owner and group may connect."""
FIRST_INHERITED = 3
"""Descriptor of the first socket from systemd (sd_listen_fds(3))."""
TAKEN_REMEDY = "; choose another --port, or stop the program that listens there"


class BindError(OSError):
    """The address cannot be bound."""


class ExposedAddress(Exception):
    """Other machines could call the server without a key."""


class ListeningSockets:
    """Sockets of one server; leaving the block closes them and removes the unix sockets that it made."""

    def __init__(self, sockets: Iterable[socket.socket], made: Iterable[Path] = ()) -> None:
        self.sockets = list(sockets)
        self._made = [(path, path.stat().st_ino) for path in made]

    def __enter__(self) -> "ListeningSockets":
        return self

    def __exit__(self, *failure: object) -> None:
        for each in self.sockets:
            each.close()
        for path, inode in self._made:
            with suppress(OSError):
                if path.stat().st_ino == inode:
                    path.unlink()

    @property
    def port(self) -> int:
        """TCP port of the first socket that has one; 0 without one."""
        return next((each.getsockname()[1] for each in self.sockets if each.family != socket.AF_UNIX), 0)

    @property
    def address(self) -> str | None:
        """Host and port of the first TCP socket, for a URL; None if there is none, or if it has all addresses."""
        for each in self.sockets:
            if each.family != socket.AF_UNIX and not ipaddress.ip_address(each.getsockname()[0]).is_unspecified:
                host, port = each.getsockname()[:2]
                return f"[{host}]:{port}" if each.family == socket.AF_INET6 else f"{host}:{port}"
        return None

    def check_exposure(self) -> None:
        """Raise ExposedAddress if other machines can reach a socket."""
        for each in self.sockets:
            if each.family != socket.AF_UNIX and not _is_loopback(each.getsockname()[0]):
                raise ExposedAddress(
                    f"{each.getsockname()[0]} is reachable from other machines, and there are no API keys: set "
                    "--api-key-file, or accept any caller with --insecure true"
                )


def listening_sockets(hosts: Iterable[str], port: int, environ: Mapping[str, str]) -> ListeningSockets:
    """Return systemd's sockets, or sockets bound to each host; `unix:PATH` is a unix socket. Raises BindError."""
    if inherited := _inherited(environ):
        return ListeningSockets(inherited)
    hosts = list(hosts)
    sockets: list[socket.socket] = []
    made: list[Path] = []
    try:
        for host in hosts:
            if host.startswith(UNIX_PREFIX):
                path = Path(host.removeprefix(UNIX_PREFIX))
                sockets.append(_bind_unix(path))
                made.append(path)
            else:
                sockets.append(_bind_tcp(host, port, alone=len(hosts) == 1))
    except BindError:
        ListeningSockets(sockets, made).__exit__()
        raise
    return ListeningSockets(sockets, made)


def _bind_tcp(host: str, port: int, alone: bool) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            _set_options(listener)
            if family == socket.AF_INET6:  # `::` alone is all of IPv4 too; beside `0.0.0.0` that would be taken
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not alone)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        remedy = TAKEN_REMEDY if error.errno == errno.EADDRINUSE else ""
        raise BindError(f"cannot listen on {host} port {port}: {error.strerror}{remedy}") from error
    except UnicodeError as error:  # the name breaks DNS's rules: labels of 1 to 63 bytes
        raise BindError(f"cannot listen on {host} port {port}: this is not a host name") from error
    return listener


def _bind_unix(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        listener.bind(str(path))
        path.chmod(UNIX_MODE)
    except OSError as error:
        listener.close()
        raise BindError(f"cannot listen on {UNIX_PREFIX}{path}: {error.strerror or error}") from error
    return listener


def _remove_stale(path: Path) -> None:
    """Remove a unix socket that a killed server left: nobody accepts its connections."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()


def _inherited(environ: Mapping[str, str]) -> list[socket.socket]:
    """Return the sockets that systemd has opened for this process (sd_listen_fds(3)). Raises BindError."""
    count = environ.get("LISTEN_FDS", "")
    if environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal():
        return []
    sockets = []
    for descriptor in range(FIRST_INHERITED, FIRST_INHERITED + int(count)):
        try:
            listener = socket.socket(fileno=descriptor)
        except OSError as error:
            raise BindError(f"descriptor {descriptor} from systemd is not a socket: {error.strerror}") from error
        if listener.type != socket.SOCK_STREAM:
            raise BindError(
                f"descriptor {descriptor} from systemd is not a stream socket: use ListenStream= in the unit"
            )
        listener.set_inheritable(False)
        if listener.family != socket.AF_UNIX:
            _set_options(listener)
        sockets.append(listener)
    return sockets


def _set_options(listener: socket.socket) -> None:
    for level, option, value in INHERITED_OPTIONS:
        listener.setsockopt(level, option, value)


def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback
