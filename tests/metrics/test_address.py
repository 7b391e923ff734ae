"""Addresses to listen at."""

from __future__ import annotations

import socket

import pytest

from csi_model.errors import BusyError, InvalidRequestError
from csi_model.metrics.address import Address


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:9808", "127.0.0.1", 9808),
        ("localhost:0", "localhost", 0),
        (":9808", "", 9808),
        ("[::]:9808", "::", 9808),
        ("[::1]:65535", "::1", 65535),
    ],
)
def test_addresses_are_written_as_everywhere(text: str, host: str, port: int) -> None:
    """Host and port, an IPv6 address in brackets, or a port alone; each is shown as it was written."""
    assert Address.parse(text) == Address(host, port)
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize("text", ["", "9808", "::1:9808", "[::1]", "h:65536", "h:-1", "http://h:1", "h:1/", "a b:1", "[zz]:1"])
def test_anything_else_is_refused_with_the_forms(text: str) -> None:
    """What is no address is refused, and the message shows how one is written."""
    with pytest.raises(InvalidRequestError, match=r"HOST:PORT, \[IPV6\]:PORT, or :PORT"):
        Address.parse(text)


@pytest.mark.parametrize("text", [":0", "[::]:0"])
def test_all_addresses_take_both_families(text: str) -> None:
    """A driver that listens everywhere is reached over IPv4 and, where there is any, IPv6."""
    if text == "[::]:0" and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    with Address.parse(text).listen() as listener:
        port = listener.getsockname()[1]
        hosts = ["127.0.0.1", *(["::1"] if socket.has_dualstack_ipv6() else [])]
        for host in hosts:
            socket.create_connection((host, port), timeout=5).close()


def test_a_taken_port_is_named() -> None:
    """Two drivers cannot share a port, and the second one says so."""
    with Address("127.0.0.1", 0).listen() as listener:
        port = listener.getsockname()[1]
        with pytest.raises(BusyError, match=f"another process listens at 127.0.0.1:{port}"):
            Address("127.0.0.1", port).listen()


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_that_is_not_ours_is_refused(host: str) -> None:
    """An address of another machine, or a name that resolves to nothing, is a mistake in the command line."""
    with pytest.raises(InvalidRequestError, match=f"cannot listen at {host}:0"):
        Address(host, 0).listen()
