"""``csi-model serve-controller`` as the process that a pod runs."""

from __future__ import annotations

import signal
import socket
import time
from typing import TYPE_CHECKING

from tests.cli.test_serve import events

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Person


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def test_it_serves_without_a_state_directory_and_stops(person: Person) -> None:
    """It answers at its socket, makes no state directory, logs JSON alone, and ends with 0 on SIGTERM."""
    endpoint = person.folder / "csi.sock"
    driver = person.start("serve-controller", "--endpoint", f"unix://{endpoint}")
    end = time.monotonic() + 30
    while not _answers(endpoint):
        assert time.monotonic() < end, "did not start"
        assert driver.poll() is None
        time.sleep(0.05)
    driver.send_signal(signal.SIGTERM)
    output, log = driver.communicate(timeout=30)
    assert (driver.returncode, output) == (0, "")
    assert [event["event"] for event in events(log)] == ["serving", "stopping"]
    assert not endpoint.exists()
    assert not person.state.exists()


def test_an_endpoint_that_cannot_be_served_is_said_in_its_log(person: Person) -> None:
    """It ends with that error's code, and the reason is a line of JSON that names the directory to make."""
    driver = person.start("serve-controller", "--endpoint", f"unix://{person.folder}/absent/csi.sock")
    _, log = driver.communicate(timeout=30)
    assert driver.returncode == 2
    (event,) = events(log)
    assert f"{person.folder}/absent does not exist" in event["error"]
