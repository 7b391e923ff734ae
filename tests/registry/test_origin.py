from __future__ import annotations

import pytest

from csi_model.errors import DeniedError
from csi_model.registry.origin import Origin, Url, is_loopback
from csi_model.registry.settings import HttpSettings

REGISTRY = Url(Origin("https", "registry.example", 443), "/v2/a/blobs/x")


def parse(text: str, base: Url = REGISTRY) -> Url:
    return Url.parse(text, base=base, what="a redirect")


@pytest.mark.parametrize(
    ("registry", "settings", "expected"),
    [
        ("registry.example", HttpSettings(), "https://registry.example"),
        ("registry.example:5000", HttpSettings(), "https://registry.example:5000"),
        ("registry.example:5000", HttpSettings(plain_http=frozenset({"registry.example:5000"})), "http://registry.example:5000"),
        ("registry.example", HttpSettings(plain_http=frozenset({"registry.example:5000"})), "https://registry.example"),
        ("127.0.0.1:5000", HttpSettings(), "https://127.0.0.1:5000"),
        ("127.0.0.1:5000", HttpSettings(loopback_plain_http=True), "http://127.0.0.1:5000"),
        ("[::1]:5000", HttpSettings(loopback_plain_http=True), "http://[::1]:5000"),
        ("registry.example", HttpSettings(loopback_plain_http=True), "https://registry.example"),
    ],
)
def test_plain_http_is_for_hosts_that_were_named(registry: str, settings: HttpSettings, expected: str) -> None:
    """TLS is left out only for a host that the configuration names, port included, and for loopback when a person asked."""
    assert str(Origin.of_registry(registry, settings)) == expected


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("https://cdn.example/x?sig=1", Url(Origin("https", "cdn.example", 443), "/x?sig=1")),
        ("//cdn.example:8443/x", Url(Origin("https", "cdn.example", 8443), "/x")),
        ("/other", Url(Origin("https", "registry.example", 443), "/other")),
        ("https://CDN.example", Url(Origin("https", "cdn.example", 443), "/")),
    ],
)
def test_locations(location: str, expected: Url) -> None:
    """Absolute and relative locations are understood."""
    assert parse(location) == expected


@pytest.mark.parametrize(
    "location",
    [
        "http://cdn.example/x",
        "ftp://cdn.example/x",
        "file:///etc/passwd",
        "https://user:pw@cdn.example/",
        "https://[x/",
        "https://a:99999/",
    ],
)
def test_refused_locations(location: str) -> None:
    """Nobody is sent away from TLS, to another protocol, or with a user name in a URL."""
    with pytest.raises(DeniedError):
        parse(location)


def test_a_url_as_text_has_no_query() -> None:
    """Signatures stay out of messages and logs."""
    assert str(parse("https://cdn.example/x?sig=secret")) == "https://cdn.example/x"


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.2", True), ("::1", True), ("localhost", True), ("10.0.0.1", False), ("a.b", False)]
)
def test_loopback(host: str, *, expected: bool) -> None:
    """What is called loopback is loopback."""
    assert is_loopback(host) is expected
