"""Which hosts NO_PROXY excepts, by the rules of Go's clients (package x/net/http/httpproxy), which kubelet and containerd follow.

``example.com`` is the host and all below it, ``.example.com`` and ``*.example.com`` only what is below it, ``10.0.0.0/8`` a network,
``10.1.2.3`` an address, ``*`` everything. All but networks may end in a port. What is none of these is ignored.
"""

from __future__ import annotations

import ipaddress

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def is_excepted(no_proxy: str, host: str, port: int) -> bool:
    """Whether an entry of ``no_proxy``, a list separated by commas, holds for a host, which has no brackets, and its port."""
    name, address = host.lower(), _address(host)
    return any(_matches(entry, name, address, str(port)) for part in no_proxy.split(",") if (entry := part.strip().lower()))


def _matches(entry: str, name: str, address: _Address | None, port: str) -> bool:
    if entry == "*":
        return True
    network = _network(entry)
    if network:
        return address is not None and address in network
    pattern, wanted_port = _split_port(entry)
    if wanted_port not in {"", port}:
        return False
    wanted = _address(pattern)
    if wanted:
        return address == wanted
    domain = pattern.removeprefix("*")
    if domain.startswith("."):
        return name.endswith(domain)
    return pattern != "" and (name == pattern or name.endswith(f".{pattern}"))


def _address(text: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # An IPv4 address is the same in its IPv6 spelling.
    return (address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None) or address


def _network(text: str) -> _Network | None:
    if not text.rpartition("/")[2].isdigit():  # Python takes a netmask for a length, too, and an address for a network
        return None
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _split_port(entry: str) -> tuple[str, str]:
    """Host and port of ``host:port`` or ``[address]:port``; all of it and none where it is neither, such as a bare IPv6 address."""
    host, colon, port = entry.rpartition(":")
    if colon and host.startswith("[") and host.endswith("]"):
        return host[1:-1], port
    if colon and not set(host) & set(":[]"):
        return host, port
    return entry, ""
