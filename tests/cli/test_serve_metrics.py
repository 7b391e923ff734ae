"""``serve --metrics-address``: the pages of a real driver process, from its start to its end."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import time
from typing import TYPE_CHECKING, NoReturn
from urllib.error import HTTPError
from urllib.request import urlopen

import grpc
import pytest

from csi_model.cli import exits
from csi_model.errors import DiskError
from csi_model.generated import csi_pb2, csi_pb2_grpc, pluginregistration_pb2, pluginregistration_pb2_grpc
from csi_model.volumes import engine

if TYPE_CHECKING:
    from tests.cli.conftest import Person


def ask(port: int, path: str) -> tuple[int, str]:
    """Status and body; 0 while nobody listens."""
    try:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
            return response.status, response.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.root
def test_a_driver_tells_how_it_is(person: Person) -> None:
    """It lives at once, is ready once kubelet has registered it, and counts the calls that reach its socket."""
    port, sockets = free_port(), (person.folder / "csi.sock", person.folder / "csi-model.dev-reg.sock")
    words = ("--endpoint", str(sockets[0]), "--node-id", "n1", "--registration-dir", str(person.folder))
    driver = person.start("serve", *words, "--metrics-address", f"127.0.0.1:{port}")
    try:
        end = time.monotonic() + 30
        while not sockets[1].exists():
            assert time.monotonic() < end, "did not start"
            assert ask(port, "/healthz")[0] in {0, 200}
            assert ask(port, "/readyz")[0] in {0, 503}
            time.sleep(0.02)
        assert ask(port, "/healthz") == (200, "ok\n")
        while ask(port, "/readyz") != (503, "kubelet has not registered the driver yet\n"):
            assert time.monotonic() < end
        with grpc.insecure_channel(f"unix:{sockets[1]}") as channel:
            status = pluginregistration_pb2.RegistrationStatus(plugin_registered=True)
            pluginregistration_pb2_grpc.RegistrationStub(channel).NotifyRegistrationStatus(status)
        assert ask(port, "/readyz") == (200, "ok\n")
        with grpc.insecure_channel(f"unix:{sockets[0]}") as channel, contextlib.suppress(grpc.RpcError):
            csi_pb2_grpc.NodeStub(channel).NodePublishVolume(csi_pb2.NodePublishVolumeRequest())
        _, text = ask(port, "/metrics")
        assert 'csi_model_csi_calls_total{code="INVALID_ARGUMENT",method="NodePublishVolume"} 1.0' in text
        assert "csi_model_registered 1.0" in text
        assert "csi_model_disk_free_bytes" in text
    finally:
        driver.send_signal(signal.SIGTERM)
        _, log = driver.communicate(timeout=30)
    assert driver.returncode == 0
    assert "monitoring" in {json.loads(line)["event"] for line in log.splitlines()}
    assert ask(port, "/healthz") == (0, "")


def test_a_long_start_is_no_death(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the store is still being opened, the driver lives and says that it is starting."""
    port = free_port()
    seen: list[tuple[int, str]] = []

    def slow(*_: object, **__: object) -> NoReturn:
        seen.extend(ask(port, path) for path in ("/healthz", "/readyz", "/metrics"))
        msg = "enough"
        raise DiskError(msg)

    monkeypatch.setattr(engine, "open_engine", slow)
    result = person.run("serve", "--endpoint", "/x/csi.sock", "--node-id", "n1", "--metrics-address", f"127.0.0.1:{port}")
    assert result.exit_code == exits.CODES[DiskError]
    assert seen[:2] == [(200, "ok\n"), (503, "the driver is starting\n")]
    assert "csi_model_build_info" in seen[2][1]


@pytest.mark.parametrize(("address", "code", "text"), [("9808", 2, "no address to listen at"), ("192.0.2.1:1", 2, "cannot listen")])
def test_a_wrong_address_ends_the_start(person: Person, address: str, code: int, text: str) -> None:
    """An address that is none, or not this machine's, ends the driver before it touches anything; the log says why."""
    driver = person.start("serve", "--endpoint", "/x/csi.sock", "--node-id", "n1", "--metrics-address", address)
    _, log = driver.communicate(timeout=30)
    assert driver.returncode == code
    (event,) = [json.loads(line) for line in log.splitlines()]
    assert text in event["error"]
    assert not person.state.exists()


def test_a_taken_port_ends_the_start(person: Person) -> None:
    """Another process at the port is named as the reason, with the exit code of what is in use."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        where = f"127.0.0.1:{other.getsockname()[1]}"
        driver = person.start("serve", "--endpoint", "/x/csi.sock", "--node-id", "n1", "--metrics-address", where)
        _, log = driver.communicate(timeout=30)
    assert driver.returncode == 5
    assert f"another process listens at {where}" in log
