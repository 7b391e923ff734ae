"""Where to listen: ``HOST:PORT`` as people write it, and the socket that belongs to it."""

from __future__ import annotations

import errno
import re
import socket
from dataclasses import dataclass
from typing import Self

from csi_model.errors import BusyError, InvalidRequestError

_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9.-]*)):(?P<port>[0-9]{1,5})")
_BACKLOG = 64


@dataclass(frozen=True, slots=True)
class Address:
    """A host, empty for every address of the machine, and a port, 0 for one that the kernel chooses."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``127.0.0.1:9808``, ``[::1]:9808``, ``localhost:9808`` or ``:9808``.

        Raises:
            InvalidRequestError: it is none of these.
        """
        match = _ADDRESS.fullmatch(text)
        if not match or int(match["port"]) > 65535:
            msg = f"{text[:80]!r} is no address to listen at; write HOST:PORT, [IPV6]:PORT, or :PORT for all addresses"
            raise InvalidRequestError(msg)
        return cls(match["v6"] or match["host"], int(match["port"]))

    def listen(self) -> socket.socket:
        """A socket that listens there; ``[::]`` and all addresses take IPv4 callers, too.

        Raises:
            BusyError: the port is taken.
            InvalidRequestError: the host is not known, or none of this machine's.
        """
        try:
            family, where = self._resolve()
            wildcard = family == socket.AF_INET6 and where[0] == "::"
            return socket.create_server(where[:2], family=family, backlog=_BACKLOG, dualstack_ipv6=wildcard and socket.has_dualstack_ipv6())
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                msg = f"another process listens at {self}; stop it, or choose another port"
                raise BusyError(msg) from error
            msg = f"cannot listen at {self}: {error.strerror or error}"
            raise InvalidRequestError(msg) from error

    def _resolve(self) -> tuple[socket.AddressFamily, tuple[str, int]]:
        if not self.host:
            return (socket.AF_INET6, ("::", self.port)) if socket.has_dualstack_ipv6() else (socket.AF_INET, ("0.0.0.0", self.port))  # noqa: S104 - asked for
        family, _, _, _, where = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0]
        return family, (str(where[0]), self.port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
