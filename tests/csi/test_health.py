"""What probes are told, over a real socket."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from csi_model.csi import health as health_module
from csi_model.csi import sockets
from csi_model.csi.controller import Controller
from csi_model.csi.health import Health
from csi_model.csi.identity import Identity
from csi_model.csi.server import controller_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def served(short_dir: Path) -> Iterator[Path]:
    """A socket at which Identity answers."""
    server = controller_server(Identity("csi-model.test", threading.Event()), Controller())
    sockets.listen(server, short_dir / "csi.sock")
    server.start()
    yield short_dir / "csi.sock"
    server.stop(1).wait(2)


def test_a_driver_that_starts_lives_and_is_not_ready() -> None:
    """However long the start takes, a liveness probe succeeds and a readiness probe says that it is starting."""
    health = Health()
    assert health.dead_because() is None
    assert health.unready_because() == "the driver is starting"


def test_a_serving_driver_lives_and_is_ready_once_registered(served: Path) -> None:
    """Both probes succeed while CSI is served, readiness only after kubelet's word; after the end it is stopping, and not dead."""
    health, registered = Health(), threading.Event()
    with health.serving(served, registered):
        assert health.dead_because() is None
        assert health.unready_because() == "kubelet has not registered the driver yet"
        assert not health.is_registered
        registered.set()
        assert health.unready_because() is None
        assert health.is_registered
    assert health.dead_because() is None
    assert health.unready_because() == "the driver is stopping"


def test_without_registration_serving_is_enough(served: Path) -> None:
    """A driver that kubelet is not asked to register is ready as soon as it serves."""
    health = Health()
    with health.serving(served, None):
        assert health.unready_because() is None


def test_a_socket_that_is_gone_is_death(served: Path) -> None:
    """A driver whose socket was removed cannot be called by anybody, which only a restart cures."""
    health = Health()
    with health.serving(served, None):
        served.unlink()
        assert "UNAVAILABLE" in str(health.dead_because())


def test_a_server_that_does_not_answer_is_death(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe that gets no answer within its time says which call failed and how."""
    monkeypatch.setattr(health_module, "_PROBE_SECONDS", 0.2)
    release = threading.Event()

    class Stuck(Identity):
        def Probe(self, request: object, context: object) -> object:  # type: ignore[override]  # noqa: N802
            release.wait(10)
            return super().Probe(request, context)  # type: ignore[arg-type]

    server = controller_server(Stuck("csi-model.test", threading.Event()), Controller())
    sockets.listen(server, short_dir / "csi.sock")
    server.start()
    health = Health()
    with health.serving(short_dir / "csi.sock", None):
        assert health.dead_because() == f"Identity.Probe at {short_dir / 'csi.sock'} ended with DEADLINE_EXCEEDED"
    release.set()
    server.stop(1).wait(2)


def test_an_end_in_the_middle_of_a_probe_is_no_death(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that fails because the driver has just ended in good order does not call for a restart."""
    health, serving = Health(), ExitStack()
    serving.enter_context(health.serving(short_dir / "csi.sock", None))

    def probe(_path: Path) -> str:
        serving.close()
        return "nobody there"

    monkeypatch.setattr(health_module, "_probe", probe)
    assert health.dead_because() is None


def test_probes_may_come_at_once(served: Path) -> None:
    """Several probes at the same moment all get their answer."""
    health = Health()
    with health.serving(served, None), ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: health.dead_because(), range(8))) == [None] * 8
