from __future__ import annotations

import os
import socket
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from csi_model.cli import checks, doctor
from csi_model.cli.checks import Status
from csi_model.config.model import Csi
from csi_model.linux.disk import Space
from csi_model.linux.kernel import KernelVersion
from csi_model.mount.strategy import LADDER, Ladder, RungResult, Strategy
from csi_model.registry.ping import Pong
from csi_model.store.store import Store
from tests.fakes.models import push_artifact
from tests.fakes.registry import BasicAuth, FakeRegistry, Fault

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Person

BARE = Csi()


def by_name(person: Person, *words: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code and the checks."""
    import json

    result = person.run("doctor", "--json", *words)
    document = json.loads(result.stdout)
    assert list(document) == list(doctor.FIELDS)
    assert document["healthy"] == (result.exit_code == 0)
    assert all(list(check) == list(doctor.CHECK_FIELDS) for check in document["checks"])
    return result.exit_code, {check["name"]: check for check in document["checks"]}


@pytest.mark.root
def test_a_good_node_is_healthy(person: Person) -> None:
    """Before the first pull everything is found out by trying, nothing fails, and nothing is left behind."""
    code, found = by_name(person)
    assert code == 0
    assert set(found) >= {"kernel", "state directory", "disk", "mounting"}
    assert found["mounting"]["detail"].split()[0] in {rung.value for rung in LADDER}
    assert not person.state.exists()


@pytest.mark.root
def test_the_owner_of_the_state_directory_is_named(person: Person) -> None:
    """Beside a running driver doctor works, says which process owns the directory, and leaves the lock alone."""
    with Store.open(person.state, writable=True):
        code, found = by_name(person)
        assert code == 0
        assert f"owned by process {os.getpid()}" in found["state directory"]["detail"]
    _, found = by_name(person)
    assert "owned by no process" in found["state directory"]["detail"]


def test_a_damaged_database_is_found(person: Person, registry_pull: None) -> None:
    """A state database that is no longer one fails the check and the command."""
    (person.state / "state.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    code, found = by_name(person)
    assert (code, found["state database"]["status"]) == (1, "fail")
    assert "rebuild" in f"{found['state database']['detail']}{found['state database']['advice']}"


def test_a_database_with_wrong_pages_is_found(person: Person, registry_pull: None) -> None:
    """Damage that opening does not meet is found by the full check."""
    with sqlite3.connect(person.state / "state.db") as db:
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_master SET rootpage = 2 WHERE name = (SELECT max(name) FROM sqlite_master WHERE type = 'table')")
    db.close()
    code, found = by_name(person)
    assert (code, found["state database"]["status"]) == (1, "fail")


@pytest.fixture
def registry_pull(person: Person) -> None:
    with FakeRegistry() as registry:
        assert person.run("pull", push_artifact(registry, "llm/tiny", {"a": b"a"}), "--plain-http").exit_code == 0


def test_registries_are_asked(person: Person, tmp_path: Path) -> None:
    """Those of the configuration and those named: one that answers, one that wants a password, one that is none, one that is gone."""
    with FakeRegistry() as good, FakeRegistry(auth=BasicAuth({"a": "b"})) as private, FakeRegistry() as web:
        web.faults.append(Fault(where="/v2/", status=404))
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            gone = f"127.0.0.1:{nobody.getsockname()[1]}"
            config = tmp_path / "config.yaml"
            config.write_text(f"registries: {{'{good.host}': {{plainHttp: true}}}}")
            hosts = [word for host in (private.host, web.host, gone, good.host) for word in ("--registry", host)]
            code, found = by_name(person, "--config", str(config), "--plain-http", *hosts)
    assert code == 1
    statuses = {host: found[f"registry {host}"] for host in (good.host, private.host, web.host, gone)}
    assert [check["status"] for check in statuses.values()] == ["ok", "ok", "fail", "fail"]
    assert "asks for credentials" in statuses[private.host]["detail"]
    assert "404" in statuses[web.host]["detail"]
    assert "cannot be reached" in statuses[gone]["detail"]


def test_a_registry_that_needs_plain_http_says_how(person: Person) -> None:
    """Without leave to speak plain HTTP, the key that gives it is named."""
    with FakeRegistry() as registry:
        code, found = by_name(person, "--registry", registry.host)
    check = found[f"registry {registry.host}"]
    assert (code, check["status"]) == (1, "fail")
    assert "plainHttp" in f"{check['detail']}{check['advice']}"


def test_a_port_that_is_none_is_a_finding(person: Person, tmp_path: Path) -> None:
    """A slip in a host's port is told like any other finding, and the configuration's own ports are checked when it is read."""
    code, found = by_name(person, "--registry", "localhost:abc")
    assert (code, found["registry localhost:abc"]["status"]) == (1, "fail")
    assert "port" in found["registry localhost:abc"]["detail"]
    config = tmp_path / "config.yaml"
    config.write_text("registries: {'r.example:99999': {}}")
    refused = person.run("doctor", "--config", str(config))
    assert "r.example:99999" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(("ahead", "side"), [(900.0, "15 min behind"), (-7200.0, "2 h ahead of"), (120.0, None), (None, None)])
def test_a_wrong_clock_is_a_warning(monkeypatch: pytest.MonkeyPatch, ahead: float | None, side: str | None) -> None:
    """Minutes between the node's clock and the registry's are told with their direction; seconds are not."""
    monkeypatch.setattr(checks, "ping", lambda _host, _settings: Pong("https://r.example", 200, ahead))
    from csi_model.config.model import Config

    (check,) = checks.registries(["r.example"], Config(), loopback_plain_http=False)
    assert (check.status is Status.WARN) == (side is not None)
    assert side is None or side in check.detail


def test_sockets_that_were_named_must_answer(person: Person) -> None:
    """A CSI or registration socket that nobody answers at fails, also when the file is there; one that answers is fine."""
    listening, stale = person.folder / "csi.sock", person.folder / "csi-model.dev-reg.sock"
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as dead:
        server.bind(str(listening))
        server.listen()
        dead.bind(str(stale))
        dead.close()
        code, found = by_name(person, "--endpoint", f"unix://{listening}", "--registration-dir", str(person.folder))
    assert code == 1
    assert [found[name]["status"] for name in ("CSI socket", "registration")] == ["ok", "fail"]
    assert "csi-model serve" in found["registration"]["advice"]


def test_kubelets_own_directory_is_looked_at(tmp_path: Path) -> None:
    """On a node of Kubernetes the absence of a registration is worth a warning, and elsewhere nothing."""
    csi = Csi(kubelet_root=tmp_path)
    assert checks.sockets(None, None, csi) == ()
    (tmp_path / "plugins_registry").mkdir()
    assert [check.status for check in checks.sockets(None, None, csi)] == [Status.WARN]


def test_a_full_disk_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Less than the reserve, or no inode, means that nothing can be pulled."""
    for left, inodes, status in ((10, 1, Status.FAIL), (1000, 0, Status.FAIL), (1000, 1, Status.OK)):
        monkeypatch.setattr(checks, "space", lambda _path, left=left, inodes=inodes: Space(5000, left, 100, inodes))
        assert checks.disk(tmp_path / "not" / "there", reserve=10).status is status


def test_an_old_kernel_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without all the calls that mounting takes is told apart from one that has them."""
    for version, status in ((KernelVersion(5, 7, 19), Status.FAIL), (KernelVersion(5, 8, 0), Status.OK)):
        monkeypatch.setattr(KernelVersion, "running", lambda version=version: version)
        assert checks.kernel().status is status


@pytest.mark.root
@pytest.mark.parametrize(
    ("best", "status"),
    [(Strategy.EROFS_DIRECT, Status.OK), (Strategy.EROFS_LOOP, Status.OK), (Strategy.EROFS_BUFFERED, Status.WARN), (None, Status.FAIL)],
)
def test_the_rung_and_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, best: Strategy | None, status: Status) -> None:
    """The rung in use is named with why none above it is; a costly one warns, none fails."""
    rungs = tuple(RungResult(rung, works=rung is best, reason=f"because {rung.value}") for rung in LADDER)
    monkeypatch.setattr(checks, "probe", lambda _path, forced: Ladder(rungs, RungResult(Strategy.LINKS, works=True, reason=""), forced))
    check = checks.mounting(tmp_path, strategy="auto")
    assert check.status is status
    above = LADDER[: LADDER.index(best)] if best else LADDER
    assert all(f"because {rung.value}" in check.detail for rung in above)
    assert check.advice is not None or status is Status.OK


def test_without_root_what_cannot_be_found_out_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user learns that only root can try to mount, and nothing fails for it."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    check = checks.mounting(tmp_path, strategy="auto")
    assert (check.status, check.advice) == (Status.WARN, "run doctor as root")


def test_a_state_directory_that_is_a_file_fails(tmp_path: Path) -> None:
    """Something else in the state directory's place is named."""
    (tmp_path / "state").touch()
    (check,) = checks.state(tmp_path / "state")
    assert check.status is Status.FAIL


def test_people_get_lines_with_the_next_step(person: Person) -> None:
    """Without --json each check is a line that begins with how it ended, and its next step is below it."""
    result = person.run("doctor", "--endpoint", "unix:///nowhere/csi.sock")
    lines = result.stdout.splitlines()
    assert result.exit_code == 1
    (position,) = (number for number, line in enumerate(lines) if line.startswith("fail  CSI socket"))
    assert lines[position + 1].strip() == "→ start the driver: csi-model serve --endpoint unix:///nowhere/csi.sock"
