from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from csi_model.errors import MisconfiguredError, NotFoundError, UnavailableError
from csi_model.oci.reference import Reference
from csi_model.registry.origin import Origin
from csi_model.registry.proxy import Proxy, proxy_for
from csi_model.registry.transport import Transport
from csi_model.sources.registry import RegistrySource
from tests.fakes.certificates import server_context
from tests.fakes.registry import FakeRegistry, Fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.registry.conftest import Kit

DATA = bytes(range(256)) * 4000


def test_tls_with_a_configured_authority(kit: Kit, read: Callable[..., bytes], tmp_path: Path) -> None:
    """A host's CA file makes its certificate trusted; whole blobs, parts and breaks work as without TLS."""
    context, ca = server_context(tmp_path)
    with FakeRegistry(tls=context) as registry:
        blob = registry.add_blob(DATA)
        registry.add_fault(Fault(times=2, close_after=300_000))
        source = kit.source(registry, loopback_plain_http=False, ca_files={registry.host: ca})
        assert read(source, blob) == DATA
        assert read(source, blob, offset=1000, length=70_000) == DATA[1000:71_000]


def test_tls_close_from_another_thread(kit: Kit, tmp_path: Path) -> None:
    """A reader that waits for bytes over TLS ends when it is closed."""
    context, ca = server_context(tmp_path)
    with FakeRegistry(tls=context) as registry:
        blob = registry.add_blob(DATA)
        registry.add_fault(Fault(stall_after=50_000))
        reader = kit.source(registry, loopback_plain_http=False, ca_files={registry.host: ca}, stall_timeout=30).open(blob)
        timer = threading.Timer(0.2, reader.close)
        timer.start()
        with pytest.raises(UnavailableError, match="stopped"):
            reader.readinto(memoryview(bytearray(len(DATA))))
        timer.join()


def test_unknown_authority(kit: Kit, tmp_path: Path) -> None:
    """Without its CA file the certificate is refused at once, and the message names the setting."""
    context, _ = server_context(tmp_path)
    with FakeRegistry(tls=context) as registry:
        with pytest.raises(UnavailableError, match="caFile"):
            kit.source(registry, loopback_plain_http=False).resolve(kit.reference(registry))
        assert registry.connections == 1


def test_plain_http_where_tls_is_expected(kit: Kit, registry: FakeRegistry) -> None:
    """A registry without TLS is not spoken to in plain HTTP unless the configuration says so, and the message names the setting."""
    with pytest.raises(UnavailableError, match="plainHttp"):
        kit.source(registry, loopback_plain_http=False).resolve(kit.reference(registry))
    assert registry.seen == []


@pytest.mark.parametrize("kind", ["no certificate", "empty", "absent", "directory"])
def test_unusable_ca_file(kit: Kit, registry: FakeRegistry, tmp_path: Path, kind: str) -> None:
    """A CA file that is none is named when it is needed."""
    path = tmp_path / "ca.pem"
    if kind == "directory":
        path.mkdir()
    elif kind != "absent":
        path.write_text("" if kind == "empty" else "no certificate")
    source = kit.source(registry, loopback_plain_http=False, ca_files={registry.host: path})
    with pytest.raises(MisconfiguredError, match=r"the CA file .*/ca\.pem cannot be used: "):
        source.resolve(kit.reference(registry))


@pytest.mark.parametrize("how", ["written", "replaced"])
def test_renewed_ca_file(kit: Kit, read: Callable[..., bytes], tmp_path: Path, how: str) -> None:
    """A new authority in the CA file counts from the next connection on, whether the file was written anew or another took its place."""
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    _, old = server_context(tmp_path / "old")
    context, new = server_context(tmp_path / "new")
    path = tmp_path / "ca.pem"
    path.symlink_to(old)
    with FakeRegistry(tls=context) as registry:
        blob = registry.add_blob(b"weights")
        source = kit.source(registry, loopback_plain_http=False, ca_files={registry.host: path})
        with pytest.raises(UnavailableError, match="caFile"):
            read(source, blob)
        if how == "written":
            old.write_bytes(new.read_bytes())
        else:
            # As kubelet updates a mounted Secret: the name leads to another file.
            path.unlink()
            path.symlink_to(new)
        assert read(source, blob) == b"weights"


def test_ca_file_is_read_once(kit: Kit, registry: FakeRegistry, tmp_path: Path) -> None:
    """While the CA file stays as it is, connections share what was read of it, and only its newest edition is kept."""
    _, ca = server_context(tmp_path)
    transport = kit.transport(ca_files={registry.host: ca})
    origin = Origin.of_registry(registry.host, transport.settings)
    first = transport._context(origin)
    assert transport._context(origin) is first
    ca.write_bytes(ca.read_bytes() * 2)
    assert transport._context(origin) is not first
    assert len(transport._contexts) == 1


def test_nobody_listens(kit: Kit, registry: FakeRegistry) -> None:
    """A refused connection is Unavailable after the retries, and names the host."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        reference = Reference(f"127.0.0.1:{unused.getsockname()[1]}", "llm/tiny", "v1", None)
        with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:\d+ cannot be reached: .*refused"):
            RegistrySource(kit.transport(), reference).resolve(reference)


@pytest.mark.parametrize("hanging", ["tls", "dns"])
def test_hanging_connects_are_bounded(kit: Kit, hanging: str) -> None:
    """A server that accepts and then says nothing to the TLS handshake, or a resolver that hangs, costs the connect time-out."""
    release = threading.Event()

    def resolve(_host: str, _port: int) -> list[str]:
        if hanging == "dns":
            release.wait(5)
        return ["127.0.0.1"]

    with socket.create_server(("127.0.0.1", 0)) as silent:
        reference = Reference(f"hanging.example:{silent.getsockname()[1]}", "llm/tiny", "v1", None)
        transport = Transport(kit.transport(connect_timeout=0.2, retries=0).settings, resolve=resolve)
        started = time.monotonic()
        with pytest.raises(UnavailableError, match=r"within 0\.2 s"):
            RegistrySource(transport, reference).resolve(reference)
        assert time.monotonic() - started < 2
        release.set()


@pytest.mark.parametrize("dead", ["refuses", "is silent"])
def test_dead_address_before_a_live_one(kit: Kit, registry: FakeRegistry, read: Callable[..., bytes], dead: str) -> None:
    """Every address of a name is tried, each within its share of the one time limit."""
    blob = registry.add_blob(b"weights")
    host = f"two.example:{registry.port}"
    settings = kit.transport(plain_http=frozenset({host}), connect_timeout=0.4, retries=0).settings
    transport = Transport(settings, resolve=lambda _host, _port: ["127.0.0.3", "127.0.0.1"])
    kit.transports.append(transport)
    with contextlib.ExitStack() as stack:
        if dead == "is silent":
            # The kernel ignores whoever connects while the queue of a listener is full.
            stack.enter_context(socket.create_server(("127.0.0.3", registry.port), backlog=0))
            stack.enter_context(socket.create_connection(("127.0.0.3", registry.port)))
        assert read(RegistrySource(transport, Reference(host, "llm/tiny", "v1", None)), blob) == b"weights"


def test_no_thread_for_the_look_up(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no more threads may start, a host counts as not reached, which is tried again, and not as a fault of the driver."""

    def at_the_limit(_: threading.Thread) -> None:
        msg = "can't start new thread"
        raise RuntimeError(msg)

    monkeypatch.setattr(threading.Thread, "start", at_the_limit)
    reference = Reference("registry.example", "llm/tiny", "v1", None)
    with pytest.raises(UnavailableError, match="no more threads"):
        RegistrySource(kit.transport(retries=0), reference).resolve(reference)


def test_unknown_host_is_not_retried(kit: Kit) -> None:
    """A name that does not exist is told at once."""
    asked = []

    def resolve(host: str, _port: int) -> list[str]:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    reference = Reference("nowhere.example", "llm/tiny", "v1", None)
    with pytest.raises(UnavailableError, match="does not exist"):
        RegistrySource(Transport(kit.transport().settings, resolve=resolve), reference).resolve(reference)
    assert asked == ["nowhere.example"]


def test_proxy_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTPS_PROXY and NO_PROXY are obeyed, a login goes into the header, and loopback never has a proxy."""
    monkeypatch.setenv("https_proxy", "http://me:p%40ss@proxy.example:3128")
    monkeypatch.setenv("no_proxy", "inside.example,.corp")
    assert proxy_for(Origin("https", "registry.example", 443)) == Proxy("proxy.example", 3128, "Basic bWU6cEBzcw==")
    assert proxy_for(Origin("https", "inside.example", 443)) is None
    assert proxy_for(Origin("https", "a.corp", 443)) is None
    assert proxy_for(Origin("https", "127.0.0.1", 443)) is None
    assert "bWU6" not in repr(proxy_for(Origin("https", "registry.example", 443)))
    monkeypatch.setenv("https_proxy", "socks5://proxy.example")
    with pytest.raises(MisconfiguredError):
        proxy_for(Origin("https", "registry.example", 443))


def test_pull_through_a_plain_proxy(kit: Kit, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain request to a proxy names the whole URL."""
    monkeypatch.setenv("http_proxy", registry.url)
    monkeypatch.setenv("no_proxy", "")
    reference = Reference("registry.example:5000", "llm/tiny", "v1", None)
    source = RegistrySource(kit.transport(plain_http=frozenset({"registry.example:5000"})), reference)
    with pytest.raises(NotFoundError):
        source.resolve(reference)
    assert registry.seen[0].path == "http://registry.example:5000/v2/llm/tiny/manifests/v1"
    assert registry.seen[0].headers["host"] == "registry.example:5000"


def test_pull_through_a_tunnel(kit: Kit, read: Callable[..., bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS goes through CONNECT, with the proxy's own login, and the certificate is still checked for the registry."""
    context, ca = server_context(tmp_path)
    with FakeRegistry(tls=context) as registry, socket.create_server(("127.0.0.1", 0)) as proxy:
        asked: list[bytes] = []
        thread = threading.Thread(target=_tunnel, args=(proxy, registry.port, asked), daemon=True)
        thread.start()
        monkeypatch.setenv("https_proxy", f"http://me:pw@127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setattr("csi_model.registry.proxy.is_loopback", lambda _host: False)
        blob = registry.add_blob(b"weights")
        source = kit.source(registry, loopback_plain_http=False, ca_files={registry.host: ca})
        assert read(source, blob) == b"weights"
        assert asked[0].startswith(f"CONNECT {registry.host} HTTP/1.1".encode())
        assert b"Proxy-Authorization: Basic bWU6cHc=" in asked[0]
        for transport in kit.transports:
            transport.close()
        thread.join()


def _tunnel(proxy: socket.socket, port: int, asked: list[bytes]) -> None:
    client, _ = proxy.accept()
    with client, socket.create_connection(("127.0.0.1", port)) as server:
        asked.append(client.recv(65536))
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        back = threading.Thread(target=_copy, args=(server, client), daemon=True)
        back.start()
        _copy(client, server)
        back.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    while data := source.recv(65536):
        sink.sendall(data)
    try:
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        assert sink.fileno() >= 0
