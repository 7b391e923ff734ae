from __future__ import annotations

import pytest

from csi_model.registry.noproxy import is_excepted
from csi_model.registry.origin import Origin
from csi_model.registry.proxy import Proxy, proxy_for


@pytest.mark.parametrize(
    ("no_proxy", "host", "excepted"),
    [
        ("", "registry.example", False),
        (" , ,,", "registry.example", False),
        ("*", "registry.example", True),
        ("other.example, * ,", "10.1.2.3", True),
        ("example", "example", True),
        ("example", "registry.example", True),
        ("example", "myexample", False),
        ("registry.example", "registry.example.com", False),
        (".example", "registry.example", True),
        (".example", "a.registry.example", True),
        (".example", "example", False),
        ("*.example", "registry.example", True),
        ("*.example", "example", False),
        ("*example", "registry.example", False),
        ("reg*.example", "registry.example", False),
        ("Registry.EXAMPLE", "registry.example", True),
        ("registry.example", "Registry.Example", True),
        ("registry.example:5000", "registry.example", True),
        ("registry.example:443", "registry.example", False),
        ("registry.example:", "registry.example", True),
        (".example:5000", "registry.example", True),
        ("*.example:443", "registry.example", False),
        ("*:5000", "registry.example", False),
        (":5000", "registry.example", False),
        ("a.example,.svc , .cluster.local", "registry.svc", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.30", False),
        ("10.1.2.3:5000", "10.1.2.3", True),
        ("10.1.2.3:443", "10.1.2.3", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.9.9.9/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.0.0.0/8", "registry.example", False),
        ("10.0.0.0/255.0.0.0", "10.1.2.3", False),
        ("10.0.0.0/33", "10.1.2.3", False),
        ("0.0.0.0/0", "fd00::1", False),
        ("10", "10.1.2.3", False),
        ("fd00::/8", "fd00::1", True),
        ("fd00::/8", "fe80::1", False),
        ("fd00::1", "fd00:0:0:0::1", True),
        ("[fd00::1]:5000", "fd00::1", True),
        ("[fd00::1]:443", "fd00::1", False),
        ("10.0.0.0/8", "::ffff:10.1.2.3", True),
        ("::ffff:10.1.2.3", "10.1.2.3", True),
        ("[,]:5000,[]:5000,/8,https://registry.example", "registry.example", False),
    ],
)
def test_exceptions_are_gos(no_proxy: str, host: str, *, excepted: bool) -> None:
    """Names, what is below them, addresses, networks and ports except a host at port 5000 exactly as in Go's clients."""
    assert is_excepted(no_proxy, host, 5000) is excepted


@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
def test_networks_and_globs_of_the_environment(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """A cluster's usual NO_PROXY keeps its own registries from the proxy, in either case of the variable, and loopback needs no entry."""
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv(variable, "10.0.0.0/8,192.168.0.0/16,*.corp.example,.svc,.cluster.local")
    for host in ("10.1.2.3", "192.168.7.9", "registry.corp.example", "registry.svc", "localhost", "127.0.0.2", "::1"):
        assert proxy_for(Origin("https", host, 5000)) is None, host
    for host in ("11.1.2.3", "corp.example", "registry.example"):
        assert proxy_for(Origin("https", host, 5000)) == Proxy("proxy.example", 3128), host
