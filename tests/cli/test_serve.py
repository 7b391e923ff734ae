from __future__ import annotations

import json
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

from csi_model.store.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Person

pytestmark = pytest.mark.root


def events(text: str) -> list[dict[str, Any]]:
    """The log, every line of which must be JSON."""
    return [json.loads(line) for line in text.splitlines()]


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def test_the_driver_serves_registers_and_stops(person: Person) -> None:
    """It answers at its sockets, owns the state directory, logs JSON alone, and ends with 0 on SIGTERM."""
    config = person.folder / "config.yaml"
    config.write_text(f"csi: {{kubeletRoot: {person.folder}}}\n")
    sockets = person.folder / "csi.sock", person.folder / "csi-model.dev-reg.sock"
    words = ("--endpoint", f"unix://{sockets[0]}", "--node-id", "n1", "--registration-dir", str(person.folder), "--config", str(config))
    driver = person.start("serve", *words)
    end = time.monotonic() + 30
    while not all(map(answers, sockets)):
        assert time.monotonic() < end, "did not start"
        assert driver.poll() is None
        time.sleep(0.05)
    busy = person.run("rm", "registry.example/x:v1")
    assert busy.exit_code == 5
    assert f"process {driver.pid} owns the state directory {person.state}" in busy.stderr
    checks = {check["name"]: check for check in person.json("doctor", "--endpoint", f"unix://{sockets[0]}")["checks"]}
    assert checks["CSI socket"]["status"] == "ok"
    assert f"owned by process {driver.pid}" in checks["state directory"]["detail"]
    driver.send_signal(signal.SIGTERM)
    output, log = driver.communicate(timeout=30)
    assert (driver.returncode, output) == (0, "")
    assert {"serving", "stopping"} <= {event["event"] for event in events(log)}
    assert not any(socket.exists() for socket in sockets)


def test_a_driver_that_cannot_start_says_so_in_its_log(person: Person) -> None:
    """Beside another owner it ends with that error's code, and the reason is a line of JSON like every other."""
    with Store.open(person.state, writable=True):
        driver = person.start("serve", "--endpoint", f"unix://{person.folder}/csi.sock", "--node-id", "n1")
        _, log = driver.communicate(timeout=30)
    assert driver.returncode == 5
    (event,) = events(log)
    assert "owns the state directory" in event["error"]


def test_a_wrong_configuration_is_refused_by_its_key(person: Person) -> None:
    """A key that csi-model does not know stops it at once."""
    config = person.folder / "config.yaml"
    config.write_text("pull: {activeBlob: 3}")
    result = person.run("serve", "--endpoint", "unix:///x.sock", "--node-id", "n1", "--config", str(config))
    assert result.exit_code == 2
    assert "pull.activeBlob: unknown key; did you mean activeBlobs?" in result.stderr
