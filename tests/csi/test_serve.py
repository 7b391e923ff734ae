"""The whole driver over real sockets, around a fake engine: registration, a crowd of waiting publishes, and the end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from structlog.testing import capture_logs

from csi_model.config.model import Config, Csi, Layouts
from csi_model.csi.serve import run
from csi_model.csi.shutdown import Shutdown
from csi_model.errors import BusyError, InvalidRequestError
from csi_model.generated import csi_pb2
from csi_model.generated import pluginregistration_pb2 as registration_pb2
from csi_model.generated.pluginregistration_pb2_grpc import RegistrationStub

from .conftest import Client, FakeEngine, connected, publish_request, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONFIG = Config()


@dataclass
class Driver:
    """A driver that runs in a thread."""

    csi_socket: Path
    registration_socket: Path
    shutdown: Shutdown
    exit_code: int | None = None


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


@contextmanager
def _running(engine: FakeEngine, directory: Path, config: Config = CONFIG) -> Iterator[Driver]:
    (directory / "reg").mkdir(exist_ok=True)
    driver = Driver(directory / "csi.sock", directory / "reg" / f"{config.csi.driver_name}-reg.sock", Shutdown())

    def work() -> None:
        driver.exit_code = run(
            config,
            engine,
            endpoint=f"unix://{driver.csi_socket}",
            node_id="node-1",
            registration_dir=directory / "reg",
            shutdown=driver.shutdown,
        )

    thread = threading.Thread(target=work)
    thread.start()
    try:
        _until(driver.registration_socket.exists)
        yield driver
    finally:
        driver.shutdown.ask(exit_code=0)
        thread.join(30)
    assert not thread.is_alive()


def _register(client: Client) -> registration_pb2.PluginInfo:
    return RegistrationStub(client.channel).GetInfo(registration_pb2.InfoRequest(), timeout=1)


def test_kubelet_finds_the_driver(engine: FakeEngine, short_dir: Path) -> None:
    """GetInfo names the type, the driver, the CSI socket on the host and the interface version; both sockets serve a ready Identity."""
    with _running(engine, short_dir) as driver:
        assert driver.registration_socket.name == "csi-model.dev-reg.sock"
        assert driver.registration_socket.stat().st_mode & 0o777 == 0o600
        with connected(driver.registration_socket) as client, capture_logs() as lines:
            info = _register(client)
            assert (info.type, info.name, info.endpoint) == ("CSIPlugin", "csi-model.dev", str(driver.csi_socket))
            assert list(info.supported_versions) == ["1.0.0"]
            RegistrationStub(client.channel).NotifyRegistrationStatus(registration_pb2.RegistrationStatus(plugin_registered=True))
            assert client.identity.Probe(csi_pb2.ProbeRequest()).ready.value
        assert "registered with kubelet" in [line["event"] for line in lines]
        with connected(driver.csi_socket) as client:
            assert client.identity.Probe(csi_pb2.ProbeRequest()).ready.value
            assert client.node.NodeGetInfo(csi_pb2.NodeGetInfoRequest()).node_id == "node-1"
    assert driver.exit_code == 0


def test_the_csi_socket_is_served_before_kubelet_can_see_the_driver(engine: FakeEngine, short_dir: Path) -> None:
    """Kubelet calls the CSI socket the moment it finds the registration socket: it answers by then."""
    with _running(engine, short_dir) as driver, connected(driver.csi_socket) as client:
        client.node.NodeGetInfo(csi_pb2.NodeGetInfoRequest(), timeout=1)


def test_a_refused_registration_ends_the_driver(engine: FakeEngine, short_dir: Path) -> None:
    """Kubelet's reason is logged and the exit code is not zero, so that the failure is seen."""
    with _running(engine, short_dir) as driver, connected(driver.registration_socket) as client, capture_logs() as lines:
        status = registration_pb2.RegistrationStatus(plugin_registered=False, error="another version is registered")
        RegistrationStub(client.channel).NotifyRegistrationStatus(status)
        _until(lambda: driver.exit_code is not None)
        assert driver.exit_code == 1
    assert [line["reason"] for line in lines if line["log_level"] == "error"] == ["another version is registered"]


def test_an_old_kubelet_may_send_a_path_as_authority(engine: FakeEngine, short_dir: Path) -> None:
    """Before Kubernetes 1.26 the :authority header was the socket's path, which some gRPC servers refuse."""
    with _running(engine, short_dir) as driver:
        for path in (driver.csi_socket, driver.registration_socket):
            with connected(path, ("grpc.default_authority", str(path))) as client:
                assert client.identity.Probe(csi_pb2.ProbeRequest(), timeout=5).ready.value


def test_get_info_answers_within_a_second_while_200_publishes_wait(engine: FakeEngine, short_dir: Path) -> None:
    """Kubelet's limit for GetInfo holds with 200 publishes parked, and so do unpublish and probe; then all 200 finish together."""
    engine.pulling = True
    with _running(engine, short_dir) as driver, connected(driver.csi_socket) as csi, connected(driver.registration_socket) as registration:
        calls = [csi.node.NodePublishVolume.future(publish_request(target_path=f"/t{number}"), timeout=100) for number in range(200)]
        _until(lambda: engine.waiting == 200)
        slowest = 0.0
        for _ in range(20):
            began = time.monotonic()
            assert _register(registration).name == "csi-model.dev"
            assert csi.identity.Probe(csi_pb2.ProbeRequest(), timeout=1).ready.value
            csi.node.NodeUnpublishVolume(csi_pb2.NodeUnpublishVolumeRequest(volume_id="x", target_path="/x"), timeout=1)
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 1
        engine.finish_pull()
        for call in calls:
            call.result()
        assert len(engine.published) == 200


def test_the_end_answers_waiting_publishes_and_leaves_volumes_alone(engine: FakeEngine, short_dir: Path) -> None:
    """Waiting publishes end as UNAVAILABLE within seconds, both sockets go, and nothing is unpublished."""
    with _running(engine, short_dir) as driver, connected(driver.csi_socket) as client:
        client.node.NodePublishVolume(publish_request())
        engine.pulling = True
        call = client.node.NodePublishVolume.future(publish_request(target_path="/other"), timeout=100)
        _until(lambda: engine.waiting == 1)
        began = time.monotonic()
        driver.shutdown.ask(exit_code=0)
        with refused(grpc.StatusCode.UNAVAILABLE, "the driver stops"):
            call.result()
        _until(lambda: driver.exit_code == 0)
        assert time.monotonic() - began < 10
    assert not driver.csi_socket.exists()
    assert not driver.registration_socket.exists()
    assert len(engine.published) == 1
    assert engine.unpublished == []


def test_a_second_driver_does_not_take_the_socket(short_dir: Path) -> None:
    """While one serves, another is refused, and the first goes on."""
    with _running(FakeEngine(), short_dir) as driver:
        with pytest.raises(BusyError):
            run(CONFIG, FakeEngine(), endpoint=str(driver.csi_socket), node_id="n", registration_dir=None, shutdown=Shutdown())
        with connected(driver.csi_socket) as client:
            client.identity.Probe(csi_pb2.ProbeRequest())


def test_stale_sockets_of_a_killed_driver_are_replaced(short_dir: Path) -> None:
    """After a SIGKILL both names are still there; the next driver serves at both."""
    (short_dir / "reg").mkdir()
    for name in ("csi.sock", "reg/csi-model.dev-reg.sock"):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(short_dir / name))
    with _running(FakeEngine(), short_dir) as driver, connected(driver.csi_socket) as client:
        client.identity.Probe(csi_pb2.ProbeRequest(), wait_for_ready=True, timeout=10)


@pytest.mark.parametrize(
    ("config", "endpoint", "registration"),
    [
        (CONFIG, "tcp://127.0.0.1:1", None),
        (CONFIG, "/absent/directory/csi.sock", None),
        (CONFIG, "csi.sock", Path("/absent/directory")),
        (Config(layouts=Layouts(allowed_prefixes=("oci-layout:///a//b",))), "csi.sock", None),
    ],
)
def test_what_cannot_be_served_is_refused_at_the_start(
    engine: FakeEngine, short_dir: Path, config: Config, endpoint: str, registration: Path | None
) -> None:
    """A wrong endpoint, a missing directory or a layout prefix that is no location end the start, and no socket is left behind."""
    where = str(short_dir / endpoint) if endpoint == "csi.sock" else endpoint
    with pytest.raises(InvalidRequestError):
        run(config, engine, endpoint=where, node_id="n", registration_dir=registration, shutdown=Shutdown())
    assert list(short_dir.iterdir()) == []


_CHILD = """
import sys
from pathlib import Path
from csi_model.config.model import Config
from csi_model.csi.serve import run

class Engine:
    def stop(self): pass

directory = Path(sys.argv[1])
sys.exit(run(Config(), Engine(), endpoint=str(directory / "csi.sock"), node_id="n", registration_dir=directory))
"""


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_in_good_order(short_dir: Path, kind: signal.Signals) -> None:
    """SIGTERM and SIGINT each end the process within its grace, with exit code 0 and without its sockets."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, "-c", _CHILD, str(short_dir)], env=environment, stdout=subprocess.DEVNULL) as child:
        try:
            _until((short_dir / "csi-model.dev-reg.sock").exists)
            child.send_signal(kind)
            assert child.wait(20) == 0
        finally:
            child.kill()
    assert list(short_dir.iterdir()) == []


def test_workers_come_from_the_configuration(engine: FakeEngine, short_dir: Path) -> None:
    """With 34 workers two publishes may wait; the third is sent away at once."""
    engine.pulling = True
    with _running(engine, short_dir, Config(csi=Csi(workers=34))) as driver, connected(driver.csi_socket) as client:
        calls = [client.node.NodePublishVolume.future(publish_request(target_path=f"/t{number}")) for number in range(2)]
        _until(lambda: engine.waiting == 2)
        with refused(grpc.StatusCode.ABORTED, "2 publishes are waiting"):
            client.node.NodePublishVolume(publish_request(), timeout=5)
        engine.finish_pull()
        for call in calls:
            call.result()
