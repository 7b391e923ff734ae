"""Sockets are taken over from the dead only, and are root's alone."""

from __future__ import annotations

import socket
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from csi_model.csi import sockets
from csi_model.errors import BusyError, InvalidRequestError, UnavailableError


def _server() -> grpc.Server:
    return grpc.server(ThreadPoolExecutor(1))


def test_an_endpoint_is_a_unix_socket() -> None:
    """With the scheme or as a bare path."""
    expected = Path("/var/lib/kubelet/plugins/csi-model.dev/csi.sock")
    assert sockets.parse_endpoint(f"unix://{expected}") == sockets.parse_endpoint(str(expected)) == expected


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("tcp://127.0.0.1:1", "no endpoint"),
        ("unix://relative/csi.sock", "no endpoint"),
        ("csi.sock", "no endpoint"),
        ("unix:///run/csi", "no endpoint"),
        ("", "no endpoint"),
        (f"/{'x' * 103}.sock", "longer than the 107 bytes"),
    ],
)
def test_anything_else_is_refused(endpoint: str, said: str) -> None:
    """TCP, relative paths, names that CSI does not allow and paths that the kernel cannot bind."""
    with pytest.raises(InvalidRequestError, match=said):
        sockets.parse_endpoint(endpoint)


def test_a_socket_has_mode_0600_from_its_birth(short_dir: Path) -> None:
    """Only root may call the driver; the process's umask is as before afterwards."""
    import os

    server = _server()
    before = os.umask(0o022)
    try:
        sockets.listen(server, short_dir / "csi.sock")
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
    mode = (short_dir / "csi.sock").stat().st_mode
    assert (stat.S_ISSOCK(mode), stat.S_IMODE(mode)) == (True, 0o600)
    server.stop(0).wait()


def test_a_stale_socket_is_replaced(short_dir: Path) -> None:
    """What a killed driver left behind does not keep the next one from starting."""
    path = short_dir / "csi.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.is_socket()
    sockets.clear(path)
    assert not path.exists()
    sockets.clear(path)


def test_a_living_socket_is_left_alone(short_dir: Path) -> None:
    """A second driver is refused, and the first one keeps its socket."""
    path = short_dir / "csi.sock"
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(path))
        living.listen()
        with pytest.raises(BusyError, match="another process answers"):
            sockets.listen(_server(), path)
        assert path.is_socket()


def test_what_is_no_socket_is_left_alone(short_dir: Path) -> None:
    """A file or a link with the socket's name is not ours to remove; a missing directory is named."""
    (short_dir / "a.sock").write_text("precious")
    (short_dir / "b.sock").symlink_to("a.sock")
    for name in ("a.sock", "b.sock"):
        with pytest.raises(InvalidRequestError, match="is no socket"):
            sockets.clear(short_dir / name)
    assert (short_dir / "a.sock").read_text() == "precious"
    with pytest.raises(InvalidRequestError, match="does not exist"):
        sockets.clear(short_dir / "absent" / "csi.sock")


def test_a_bind_that_the_kernel_refuses_is_our_error(short_dir: Path) -> None:
    """The RuntimeError of gRPC does not leave the package."""
    with pytest.raises(UnavailableError, match="cannot listen"):
        sockets.listen(_server(), short_dir / ("x" * 130 + ".sock"))
