"""Origins: scheme, host and port, which decide who may see credentials."""

from __future__ import annotations

import ipaddress
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from csi_model.errors import DeniedError, InvalidRequestError

if TYPE_CHECKING:
    from csi_model.registry.settings import HttpSettings

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request goes; two URLs share credentials only when their origins are equal. ``host`` has no brackets."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of_registry(cls, registry: str, settings: HttpSettings) -> Self:
        """The origin of the API of a registry that a reference names.

        Raises:
            InvalidRequestError: its address or its port is none.
        """
        try:
            parts = urllib.parse.urlsplit(f"//{registry}")
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            msg = f"{registry[:128]!r} does not name a registry: expected a name or address, and perhaps a port from 1 to 65535"
            raise InvalidRequestError(msg) from error
        plain = registry.lower() in settings.plain_http or (settings.loopback_plain_http and is_loopback(host))
        scheme = "http" if plain else "https"
        return cls(scheme, host, port or _PORTS[scheme])

    def may_be_plain(self, settings: HttpSettings) -> bool:
        """Whether this host, which a registry sent us to, may be spoken to without TLS: the same rule as for registries."""
        names = {self.netloc, f"{self._bracketed}:{self.port}"}
        return not names.isdisjoint(settings.plain_http) or (settings.loopback_plain_http and is_loopback(self.host))

    @property
    def is_plain(self) -> bool:
        """Whether it is spoken to without TLS."""
        return self.scheme == "http"

    @property
    def netloc(self) -> str:
        """Host and, unless it is the scheme's own, port; what a Host header says."""
        return self._bracketed if self.port == _PORTS[self.scheme] else f"{self._bracketed}:{self.port}"

    @property
    def _bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}"


@dataclass(frozen=True, slots=True)
class Url:
    """An origin and what is asked of it. ``str()`` leaves the query out, for it may hold a signature."""

    origin: Origin
    target: str

    @classmethod
    def parse(cls, text: str, *, base: Url, what: str, settings: HttpSettings) -> Self:
        """Parse a URL that a registry sent, relative to the one that was asked; ``what`` names it in errors.

        Raises:
            DeniedError: not http or https, malformed, with a user name in it, or plain HTTP where ``base`` is not or to another host that
                ``settings`` do not name: a registry without TLS must not choose where else passwords and models go in the clear.
        """
        origin = base.origin
        try:
            parts = urllib.parse.urlsplit(urllib.parse.urljoin(f"{origin}{base.target}", text))
            scheme, host, port, user = parts.scheme, parts.hostname, parts.port, parts.username
        except ValueError as error:
            msg = f"{origin.netloc} sent {what} that is not a URL"
            raise DeniedError(msg) from error
        if scheme not in _PORTS or not host or user is not None or not (parts.path + parts.query).isascii():
            msg = f"{origin.netloc} sent {what} that is not followed: only http and https URLs without a user name are"
            raise DeniedError(msg)
        if scheme == "http" and not origin.is_plain:
            msg = f"{origin.netloc} sent {what} that leaves TLS ({scheme}://{host[:120]}); refused"
            raise DeniedError(msg)
        query = f"?{parts.query}" if parts.query else ""
        target = (parts.path or "/") + query
        if any(character <= " " or character == "\x7f" for character in target):
            msg = f"{origin.netloc} sent {what} with blanks or control characters in it; refused"
            raise DeniedError(msg)
        found = type(origin)(scheme, host, port or _PORTS[scheme])
        if found.is_plain and found != origin and not found.may_be_plain(settings):
            name = found.netloc[:128]
            msg = (
                f"{origin.netloc} sent {what} to {name} without TLS, and the configuration does not allow plain HTTP there; "
                f"if that host is trusted, set registries.{name}.plainHttp: true"
            )
            raise DeniedError(msg)
        return cls(found, target)

    def __str__(self) -> str:
        return f"{self.origin}{self.target.partition('?')[0]}"


def is_loopback(host: str) -> bool:
    """Whether the name or address says by itself that it is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
