"""Origins: scheme, host and port, which decide who may see credentials."""

from __future__ import annotations

import ipaddress
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from csi_model.errors import DeniedError

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
        """The origin of the API of a registry that a reference names."""
        parts = urllib.parse.urlsplit(f"//{registry}")
        host = parts.hostname or ""
        plain = registry.lower() in settings.plain_http or (settings.loopback_plain_http and is_loopback(host))
        scheme = "http" if plain else "https"
        return cls(scheme, host, parts.port or _PORTS[scheme])

    @property
    def is_plain(self) -> bool:
        """Whether it is spoken to without TLS."""
        return self.scheme == "http"

    @property
    def netloc(self) -> str:
        """Host and, unless it is the scheme's own, port; what a Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}"


@dataclass(frozen=True, slots=True)
class Url:
    """An origin and what is asked of it. ``str()`` leaves the query out, for it may hold a signature."""

    origin: Origin
    target: str

    @classmethod
    def parse(cls, text: str, *, base: Url, what: str) -> Self:
        """Parse a URL that a registry sent, relative to the one that was asked; ``what`` names it in errors.

        Raises:
            DeniedError: not http or https, malformed, with a user name in it, or plain HTTP where ``base`` is not.
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
        return cls(type(origin)(scheme, host, port or _PORTS[scheme]), target)

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
