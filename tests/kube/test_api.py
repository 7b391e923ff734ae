"""The API client against a server in this process: what is written, and what failures become."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from csi_model.errors import (
    ConflictError,
    CsiModelError,
    DeniedError,
    InvalidRequestError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
)
from csi_model.kube import api as api_module
from csi_model.kube.api import ApiServer
from csi_model.kube.ledger import Post
from csi_model.kube.notes import Kind, Note, Subject
from csi_model.kube.taints import Taint, removal
from tests.fakes.apiserver import Trouble

from .conftest import DRIVER, NODE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.apiserver import FakeApiServer

POD = Subject(kind="Pod", name="web-0", uid="u-1", namespace="shop")
NOTE = Note(POD, Kind.WARNING, "NoSpace", 'volume "m": full')


def post(note: Note = NOTE, *, count: int = 1, exists: bool = False, name: str = "web-0.1f") -> Post:
    return Post(note.key, name, note, count, 1_790_000_000.7, 1_790_000_060.2, exists)


def test_an_event_is_written_as_kubelet_writes_its_own(api: FakeApiServer, cluster: ApiServer) -> None:
    """Kind core/v1 Event beside its pod, with type, reason, count, both times, and driver and node as its source."""
    cluster.write(post())
    (event,) = api.events()
    assert event == {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "web-0.1f", "namespace": "shop"},
        "involvedObject": {"apiVersion": "v1", "kind": "Pod", "name": "web-0", "namespace": "shop", "uid": "u-1"},
        "type": "Warning",
        "reason": "NoSpace",
        "message": 'volume "m": full',
        "count": 1,
        "firstTimestamp": "2026-09-21T14:13:20Z",
        "lastTimestamp": "2026-09-21T14:14:20Z",
        "source": {"component": DRIVER, "host": NODE},
        "reportingComponent": DRIVER,
        "reportingInstance": NODE,
    }


def test_an_event_that_happens_again_is_updated(api: FakeApiServer, cluster: ApiServer) -> None:
    """Count, last time and text change; the rest stays."""
    cluster.write(post())
    cluster.write(post(Note(POD, Kind.WARNING, "NoSpace", "fuller"), count=3, exists=True))
    (event,) = api.events()
    assert (event["count"], event["message"], event["firstTimestamp"]) == (3, "fuller", "2026-09-21T14:13:20Z")
    assert event["lastTimestamp"] == "2026-09-21T14:14:20+00:00"


def test_an_event_of_the_node_lives_in_the_default_namespace(api: FakeApiServer, cluster: ApiServer) -> None:
    """A node has no namespace, and its name stands for its uid as in kubelet's events."""
    cluster.write(post(Note(Subject.node(NODE), Kind.WARNING, "NoSpace", "full")))
    (event,) = api.events()
    assert event["metadata"]["namespace"] == "default"
    assert event["involvedObject"] == {"apiVersion": "v1", "kind": "Node", "name": NODE, "uid": NODE}


def test_taints_and_drivers_are_read(api: FakeApiServer, cluster: ApiServer) -> None:
    """A node's taints in their order, none where it has none, and whether CSINode lists the driver by exactly its name."""
    api.add_node(
        NODE, taints=[{"key": "a", "effect": "NoSchedule", "timeAdded": "2026-11-23T09:00:00Z"}, {"key": "b", "effect": "NoExecute"}]
    )
    assert cluster.taints(NODE) == [Taint("a", "NoSchedule"), Taint("b", "NoExecute")]
    api.add_node(NODE, drivers=("other.csi", f"{DRIVER}.de"))
    assert cluster.taints(NODE) == []
    assert not cluster.has_driver(NODE, DRIVER)
    api.list_drivers(NODE, "other.csi", DRIVER)
    assert cluster.has_driver(NODE, DRIVER)


@pytest.mark.parametrize("spec", [{"drivers": None}, {"drivers": []}, {}, None])
def test_a_csinode_without_drivers_lists_none(api: FakeApiServer, cluster: ApiServer, spec: object) -> None:
    """An empty list may be null on the wire, or absent: no driver is listed yet, and nothing is wrong with the server."""
    api.add_node(NODE)
    api.state.csinodes[NODE]["spec"] = spec
    assert not cluster.has_driver(NODE, DRIVER)


@pytest.mark.parametrize("spec", ["x", {"drivers": "x"}, {"drivers": [DRIVER]}, {"drivers": [{"name": 1}]}])
def test_a_csinode_that_makes_no_sense_is_unavailable(api: FakeApiServer, cluster: ApiServer, spec: object) -> None:
    """What is no list of drivers ends no thread of ours."""
    api.add_node(NODE)
    api.state.csinodes[NODE]["spec"] = spec
    with pytest.raises(UnavailableError, match=f"read CSINode {NODE}"):
        cluster.has_driver(NODE, DRIVER)


def test_a_patch_removes_ours_and_no_other(api: FakeApiServer, cluster: ApiServer) -> None:
    """Both of our taints go, those around them stay whole; a patch made for another list changes nothing."""
    others = [
        {"key": "gpu", "value": "true", "effect": "NoSchedule"},
        {"key": "x", "effect": "NoExecute", "timeAdded": "2026-11-23T09:00:00Z"},
    ]
    ours = [{"key": "ours", "effect": "NoSchedule"}, {"key": "ours", "effect": "NoExecute"}]
    api.add_node(NODE, taints=[ours[0], others[0], ours[1], others[1]])
    patch = removal(cluster.taints(NODE), "ours")
    api.add_node(NODE, taints=[others[0], ours[0], others[1]])
    with pytest.raises(InvalidRequestError, match="422"):
        cluster.patch_node(NODE, patch)
    assert api.taints(NODE) == [others[0], ours[0], others[1]]
    api.add_node(NODE, taints=[ours[0], others[0], ours[1], others[1]])
    cluster.patch_node(NODE, patch)
    assert api.taints(NODE) == others


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, UnauthenticatedError),
        (403, DeniedError),
        (404, NotFoundError),
        (409, ConflictError),
        (422, InvalidRequestError),
        (429, UnavailableError),
        (500, UnavailableError),
        (503, UnavailableError),
    ],
)
def test_an_answer_becomes_our_error(api: FakeApiServer, cluster: ApiServer, status: int, error: type[CsiModelError]) -> None:
    """Each status has its error, which names what was being done and the answer."""
    api.state.troubles.append(Trouble(status=status))
    with pytest.raises(error, match=rf"^cannot write the event NoSpace of Pod web-0: the API server answered {status} ") as caught:
        cluster.write(post())
    assert type(caught.value) is error


@pytest.mark.parametrize("trouble", [Trouble(hang_up=True), Trouble(status=502, text="<html>"), Trouble(status=200, text="no JSON")])
def test_a_server_that_cannot_be_understood_is_unavailable(api: FakeApiServer, cluster: ApiServer, trouble: Trouble) -> None:
    """A broken connection, a proxy's page and a reply that is no object are all worth another try."""
    api.add_node(NODE)
    api.state.troubles.append(trouble)
    with pytest.raises(UnavailableError, match=f"^cannot read Node {NODE}"):
        cluster.taints(NODE)


def test_a_silent_server_is_given_up_soon(api: FakeApiServer, account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call ends after the time-out."""
    monkeypatch.setattr(api_module, "_TIMEOUT", 0.2)
    api.state.troubles.append(Trouble(delay=2))
    cluster = ApiServer.of_pod(component=DRIVER, node=NODE, account=account)
    began = time.monotonic()
    with pytest.raises(UnavailableError, match="Timeout"):
        cluster.taints(NODE)
    assert time.monotonic() - began < 1
    cluster.close()


def test_a_rotated_token_is_read_again(api: FakeApiServer, cluster: ApiServer, account: Path) -> None:
    """When the API server no longer takes the token, the file's new one is tried at once."""
    api.add_node(NODE)
    cluster.taints(NODE)
    api.state.tokens = {"token-2"}
    (account / "token").write_text("token-2")
    assert cluster.taints(NODE) == []
    (account / "token").write_text("token-3")
    api.state.tokens = set()
    with pytest.raises(UnauthenticatedError):
        cluster.taints(NODE)
    (account / "token").unlink()
    with pytest.raises(UnauthenticatedError, match="token"):
        cluster.taints(NODE)


def test_a_proxy_of_the_environment_is_for_registries(api: FakeApiServer, account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The API server is spoken to directly."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    api.add_node(NODE)
    cluster = ApiServer.of_pod(component=DRIVER, node=NODE, account=account)
    assert cluster.taints(NODE) == []
    cluster.close()


def test_another_authority_is_not_trusted(api: FakeApiServer, account: Path, tmp_path: Path) -> None:
    """Only the service account's own authority vouches for the API server, and the token is not sent before that."""
    from tests.fakes.certificates import self_signed

    (tmp_path / "other").mkdir()
    (account / "ca.crt").write_bytes(self_signed(tmp_path / "other")[0].read_bytes())
    cluster = ApiServer.of_pod(component=DRIVER, node=NODE, account=account)
    with pytest.raises(UnavailableError, match=r"(?i)certificate"):
        cluster.taints(NODE)
    assert api.state.seen == []
    cluster.close()


@pytest.mark.parametrize("missing", ["token", "ca.crt", "namespace", "KUBERNETES_SERVICE_HOST"])
def test_outside_a_pod_it_is_refused(api: FakeApiServer, account: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """Without a service account, or the cluster's variables, the message says what --kubernetes needs."""
    if missing.isupper():
        monkeypatch.delenv(missing)
    else:
        (account / missing).unlink()
    with pytest.raises(InvalidRequestError, match="--kubernetes needs the service account"):
        ApiServer.of_pod(component=DRIVER, node=NODE, account=account)
