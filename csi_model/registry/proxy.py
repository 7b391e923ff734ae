"""Proxies as the environment names them: HTTPS_PROXY, HTTP_PROXY and NO_PROXY, in either case."""

from __future__ import annotations

import base64
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from csi_model.errors import MisconfiguredError
from csi_model.registry.noproxy import is_excepted
from csi_model.registry.origin import is_loopback

if TYPE_CHECKING:
    from csi_model.registry.origin import Origin


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where to connect instead; ``authorization`` is the value of Proxy-Authorization."""

    host: str
    port: int
    authorization: str | None = field(default=None, repr=False)


def proxy_for(origin: Origin) -> Proxy | None:
    """The proxy for ``origin``; loopback never has one.

    Raises:
        MisconfiguredError: the environment names a proxy that is not an ``http://`` URL.
    """
    if is_loopback(origin.host):
        return None
    proxies = urllib.request.getproxies_environment()
    value = proxies.get(origin.scheme) or proxies.get("all")
    if not value or is_excepted(proxies.get("no", ""), origin.host, origin.port):
        return None
    try:
        parts = urllib.parse.urlsplit(value if "://" in value else f"http://{value}")
        host, port = parts.hostname, parts.port or 80
    except ValueError as error:
        msg = f"the proxy that the environment names for {origin.scheme} is not a URL"
        raise MisconfiguredError(msg) from error
    if parts.scheme != "http" or not host:
        msg = f"the proxy that the environment names for {origin.scheme} is not an http:// URL; others are not supported"
        raise MisconfiguredError(msg)
    authorization = None
    if parts.username is not None:
        login = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(login.encode()).decode()
    return Proxy(host, port, authorization)
