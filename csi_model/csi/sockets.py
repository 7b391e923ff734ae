"""Unix sockets that a gRPC server listens on: owned by root alone, and taken over only from the dead."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from csi_model.errors import BusyError, InvalidRequestError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import grpc

# sun_path has 108 bytes, the last of them NUL.
_MAX_PATH = 107
_SCHEME = "unix://"


def parse_endpoint(endpoint: str) -> Path:
    """The path in ``unix:///directory/name.sock``; a bare absolute path will do, too.

    Raises:
        InvalidRequestError: no Unix socket, not absolute, too long for the kernel, or without the ``.sock`` that CSI asks for.
    """
    path = Path(endpoint.removeprefix(_SCHEME))
    if ("://" in endpoint and not endpoint.startswith(_SCHEME)) or not path.is_absolute() or path.suffix != ".sock":
        msg = f"{endpoint!r} is no endpoint for CSI; expected unix:///directory/name.sock"
        raise InvalidRequestError(msg)
    if len(os.fsencode(path)) > _MAX_PATH:
        msg = f"the socket path {path} is longer than the {_MAX_PATH} bytes that Linux allows; choose a shorter directory"
        raise InvalidRequestError(msg)
    return path


def clear(path: Path) -> None:
    """Remove a socket that nobody answers at, so that its name can be bound again; nothing there is fine.

    Raises:
        InvalidRequestError: the directory does not exist, or the name belongs to something that is no socket.
        BusyError: a process answers at the socket.
    """
    if not path.parent.is_dir():
        msg = f"the socket's directory {path.parent} does not exist; create it, or mount it into the container"
        raise InvalidRequestError(msg)
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        msg = f"{path} exists and is no socket; move it away"
        raise InvalidRequestError(msg)
    if _answers(path):
        msg = f"another process answers at {path}; stop it first"
        raise BusyError(msg)
    path.unlink(missing_ok=True)


def listen(server: grpc.Server, path: Path) -> None:
    """Bind ``server`` to ``path``, for root alone from the first moment on; the server still has to be started.

    The process's umask is narrowed meanwhile: a file that another thread makes in that moment is for its owner alone, too.

    Raises:
        InvalidRequestError, BusyError: as ``clear``.
        UnavailableError: the kernel refused to bind.
    """
    clear(path)
    try:
        with _umask(0o077):
            server.add_insecure_port(f"unix:{path}")
        path.chmod(0o600)
    except (RuntimeError, OSError) as error:
        msg = f"cannot listen at {path}: is the directory writable?"
        raise UnavailableError(msg) from error


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            # A full backlog or a slow peer is somebody.
            return True
        return True


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)
