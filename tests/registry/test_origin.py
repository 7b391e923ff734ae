from __future__ import annotations

import pytest

from csi_model.errors import DeniedError, InvalidRequestError
from csi_model.registry.origin import Origin, Url, is_loopback
from csi_model.registry.settings import HttpSettings

REGISTRY = Url(Origin("https", "registry.example", 443), "/v2/a/blobs/x")


def parse(text: str, base: Url = REGISTRY, settings: HttpSettings = HttpSettings()) -> Url:  # noqa: B008 - immutable
    return Url.parse(text, base=base, what="a redirect", settings=settings)


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


PLAIN = Url(Origin("http", "registry.example", 5000), "/v2/")


@pytest.mark.parametrize(
    ("location", "named", "allowed"),
    [
        ("/other", (), True),
        ("http://registry.example:5000/other", (), True),
        ("https://cdn.example/x", (), True),
        ("http://registry.example/x", (), False),
        ("http://cdn.example/x", (), False),
        ("http://cdn.example/x", ("cdn.example:5000",), False),
        ("http://cdn.example/x", ("cdn.example",), True),
        ("http://CDN.example:80/x", ("cdn.example:80",), True),
        ("http://[fd00::1]:5000/x", ("[fd00::1]:5000",), True),
        ("http://[fd00::1]/x", ("[fd00::1]",), True),
        ("http://127.0.0.1:5000/x", (), False),
    ],
)
def test_plain_http_goes_only_where_it_was_allowed(location: str, named: tuple[str, ...], *, allowed: bool) -> None:
    """From a registry without TLS too, another host is spoken to in the clear only if it is named, port included."""
    settings = HttpSettings(plain_http=frozenset(named))
    if allowed:
        parse(location, PLAIN, settings)
    else:
        with pytest.raises(DeniedError, match=r"set registries\..*\.plainHttp: true"):
            parse(location, PLAIN, settings)


def test_loopback_may_be_plain_for_who_asked() -> None:
    """A person who asked for plain HTTP on this machine is sent to any port of it, and nowhere else."""
    settings = HttpSettings(loopback_plain_http=True)
    base = Url(Origin("http", "127.0.0.1", 5000), "/v2/")
    assert parse("http://localhost:6000/x", base, settings).origin.port == 6000
    with pytest.raises(DeniedError, match="plainHttp"):
        parse("http://cdn.example/x", base, settings)


@pytest.mark.parametrize("registry", ["localhost:abc", "registry.example:99999", "[::1]:-1", "[::1"])
def test_a_port_that_is_none_is_the_callers_mistake(registry: str) -> None:
    """What names no port or no address is refused as such, and is no bug of ours."""
    with pytest.raises(InvalidRequestError, match="port"):
        Origin.of_registry(registry, HttpSettings())


def test_a_url_as_text_has_no_query() -> None:
    """Signatures stay out of messages and logs."""
    assert str(parse("https://cdn.example/x?sig=secret")) == "https://cdn.example/x"


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.2", True), ("::1", True), ("localhost", True), ("10.0.0.1", False), ("a.b", False)]
)
def test_loopback(host: str, *, expected: bool) -> None:
    """What is called loopback is loopback."""
    assert is_loopback(host) is expected
