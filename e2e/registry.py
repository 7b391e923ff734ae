"""A real registry: Debian's docker-registry on a loopback port, with its data in a folder of its own; also with Basic auth and TLS."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Registry:
    """A running registry; ``host`` is what references begin with."""

    host: str
    log: Path
    username: str | None = None
    password: str | None = None
    ca_file: Path | None = None

    def requests(self, text: str) -> int:
        """How many requests with ``text`` in their line the registry has answered."""
        return sum(text in line and "http.response.status" in line for line in self.log.read_text(errors="replace").splitlines())


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and localhost, and its key."""
    certificate, key = folder / "registry.crt", folder / "registry.key"
    request = ["openssl", "req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=localhost"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    subprocess.run([*request, *kind, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return certificate, key


def make_htpasswd(folder: Path, username: str, password: str) -> Path:
    """A bcrypt password file, the only kind that the registry reads."""
    import bcrypt

    path = folder / "htpasswd"
    path.write_text(f"{username}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(5)).decode()}\n")
    return path


@contextmanager
def running_registry(
    folder: Path, *, username: str | None = None, password: str | None = None, tls: bool = False, redirect: str | None = None
) -> Iterator[Registry]:
    """Start a registry whose data and log are in ``folder`` and stop it at the end.

    ``redirect`` is the URL of a server of the folder's ``data`` to which downloads of blobs are sent.
    """
    program = shutil.which("docker-registry")
    if program is None:
        msg = "docker-registry is not installed; run .ci/setup"
        raise RuntimeError(msg)
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    http: dict[str, object] = {"addr": f"127.0.0.1:{port}"}
    config: dict[str, object] = {
        "version": 0.1,
        "log": {"accesslog": {"disabled": True}, "level": "info"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data"), "maxthreads": 100}, "delete": {"enabled": True}},
        "http": http,
    }
    if redirect is not None:
        config["middleware"] = {"storage": [{"name": "redirect", "options": {"baseurl": redirect}}]}
    certificate: Path | None = None
    if tls:
        certificate, key = make_certificate(folder)
        http["tls"] = {"certificate": str(certificate), "key": str(key)}
    if username is not None and password is not None:
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(make_htpasswd(folder, username, password))}}
    (folder / "config.yml").write_text(yaml.safe_dump(config))
    log = folder / "registry.log"
    with log.open("wb") as output:
        process = subprocess.Popen([program, "serve", str(folder / "config.yml")], stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_until_listening(process, port, log)
        yield Registry(f"127.0.0.1:{port}", log, username, password, certificate)
    finally:
        process.terminate()
        process.wait(10)


def wait_until_listening(process: subprocess.Popen[bytes], port: int, log: Path | None = None) -> None:
    """Return once a server that was started accepts connections on a loopback port; ``RuntimeError`` with its log when it does not."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.02)
        else:
            return
    msg = f"{process.args!r} did not start:\n{log.read_text(errors='replace') if log is not None else ''}"
    raise RuntimeError(msg)
