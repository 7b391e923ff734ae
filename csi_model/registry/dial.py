"""Connecting within a time limit that covers name look-up, every address tried, the proxy and the TLS handshake."""

from __future__ import annotations

import errno
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING

from csi_model.errors import DeniedError, UnavailableError
from csi_model.registry.retry import TransientError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from csi_model.registry.origin import Origin
    from csi_model.registry.proxy import Proxy

    Resolve = Callable[[str, int], Sequence[str]]

_UNTRUSTED = "its certificate is not trusted ({}); name its authority in the configuration: registries, this host, caFile"
_NOT_TLS = "it does not speak TLS there; if it is meant to be plain HTTP, say so in the configuration: registries, this host, plainHttp"
_NOT_TLS_REASONS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"}


def resolve_host(host: str, port: int) -> Sequence[str]:
    """The addresses of ``host`` in the order to try them; may take as long as the system's resolver likes."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def dial(
    origin: Origin,
    *,
    proxy: Proxy | None,
    context: ssl.SSLContext | None,
    timeout: float,
    public_only: bool,
    resolve: Resolve = resolve_host,
) -> socket.socket:
    """Connect to ``origin``; with a ``context``, over TLS.

    ``public_only`` refuses addresses of this machine and link-local ones (cloud metadata), for hosts that a registry named and no person.

    Raises:
        TransientError: not reached in time, or refused.
        UnavailableError: the name does not exist, or TLS cannot be agreed on whatever the number of attempts.
        DeniedError: an address that ``public_only`` forbids.
    """
    deadline = time.monotonic() + timeout
    try:
        sock = _connect(origin, proxy, deadline, public_only=public_only, resolve=resolve)
        try:
            if proxy and not origin.is_plain:
                _open_tunnel(sock, origin, proxy)
            if context:
                sock.settimeout(_left(deadline))
                # The handshake as a whole is held to the socket's time-out.
                sock = context.wrap_socket(sock, server_hostname=origin.host)
        except BaseException:
            sock.close()
            raise
    except ssl.SSLCertVerificationError as error:
        msg = f"{origin.netloc} cannot be used: {_UNTRUSTED.format(error.verify_message)}"
        raise UnavailableError(msg) from error
    except ssl.SSLError as error:
        if error.reason in _NOT_TLS_REASONS:
            msg = f"{origin.netloc} cannot be used: {_NOT_TLS}"
            raise UnavailableError(msg) from error
        msg = f"{origin.netloc} broke off the TLS handshake ({error.reason or error})"
        raise TransientError(msg) from error
    except TimeoutError as error:
        msg = f"{origin.netloc} did not accept a connection within {timeout:g} s"
        raise TransientError(msg) from error
    except (OSError, http.client.HTTPException) as error:
        msg = f"{origin.netloc} cannot be reached: {error}"
        raise TransientError(msg) from error
    return sock


def _connect(origin: Origin, proxy: Proxy | None, deadline: float, *, public_only: bool, resolve: Resolve) -> socket.socket:
    host, port = (proxy.host, proxy.port) if proxy else (origin.host, origin.port)
    addresses = _look_up(host, port, deadline, resolve)
    if public_only and not proxy:
        _refuse_local(origin, addresses)
    failure: OSError = OSError("the name has no address")
    for number, address in enumerate(addresses):
        try:
            # A dead address takes only its share of the time that is left.
            sock = socket.create_connection((address, port), timeout=_left(deadline) / (len(addresses) - number))
        except OSError as error:
            failure = error
        else:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(_left(deadline))
            return sock
    raise failure


def _look_up(host: str, port: int, deadline: float, resolve: Resolve) -> Sequence[str]:
    """Resolve in a thread, for the system's resolver has no time limit of its own to set."""
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        pass
    found: list[Sequence[str]] = []
    failed: list[OSError | UnicodeError] = []

    def work() -> None:
        try:
            found.append(resolve(host, port))
        except (OSError, UnicodeError) as error:
            failed.append(error)

    thread = threading.Thread(target=work, name=f"resolve {host[:40]}", daemon=True)
    try:
        thread.start()
    except RuntimeError as limit:
        raise OSError(errno.EAGAIN, "the driver may start no more threads now") from limit
    thread.join(_left(deadline))
    if found:
        return found[0]
    if not failed:
        msg = "the name was not resolved in time"
        raise TimeoutError(msg)
    error = failed[0]
    if isinstance(error, UnicodeError) or (isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME):
        msg = f"the host name {host[:120]!r} does not exist; check the reference and the node's DNS"
        raise UnavailableError(msg) from error
    raise error


def _refuse_local(origin: Origin, addresses: Sequence[str]) -> None:
    for text in addresses:
        address = ipaddress.ip_address(text.partition("%")[0])
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        if any(a.is_loopback or a.is_link_local or a.is_unspecified or a.is_multicast for a in (mapped or address,)):
            msg = f"a registry pointed to {origin.netloc}, which is this machine or a link-local address; refused"
            raise DeniedError(msg)


def _open_tunnel(sock: socket.socket, origin: Origin, proxy: Proxy) -> None:
    target = f"[{origin.host}]:{origin.port}" if ":" in origin.host else f"{origin.host}:{origin.port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
    response = http.client.HTTPResponse(sock, method="CONNECT")
    with response:
        response.begin()
        if response.status != http.HTTPStatus.OK:
            msg = f"the proxy {proxy.host}:{proxy.port} answered {response.status} to CONNECT"
            raise OSError(msg)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        msg = "no time is left"
        raise TimeoutError(msg)
    return left
