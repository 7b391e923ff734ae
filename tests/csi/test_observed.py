"""What observers of a publish are told at the gRPC edge."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest
from structlog.testing import capture_logs

from csi_model.csi.observed import identify, observed
from csi_model.errors import ConflictError, InvalidRequestError, StillPullingError
from csi_model.volumes.observer import Mounted, PublishCall, Refused

from .conftest import REFERENCE, Client, FakeEngine, publish_request, refused

if TYPE_CHECKING:
    from csi_model.volumes.observer import Happening

POD = {
    "csi.storage.k8s.io/pod.name": "web-0",
    "csi.storage.k8s.io/pod.namespace": "shop",
    "csi.storage.k8s.io/pod.uid": "1-2-3",
    "csi.storage.k8s.io/serviceAccount.tokens": '{"aud": {"token": "canary"}}',
}
Told = list[tuple[PublishCall, "Happening"]]


def test_an_observer_learns_who_and_what(client: Client, told: Told) -> None:
    """Pod, volume and reference of a publish that mounted, and what the engine told; nothing of its secrets."""
    client.node.NodePublishVolume(
        publish_request(volume_context={"reference": f"oci://{REFERENCE}", **POD}, secrets={"password": "canary"})
    )
    ((call, happening),) = told
    assert call == PublishCall("csi-1", publish_request().target_path, REFERENCE, "shop", "web-0", "1-2-3")
    assert call.volume == "m"
    assert isinstance(happening, Mounted)
    assert "canary" not in repr(told)


def test_a_volume_is_named_by_kubelets_path_only() -> None:
    """A target that is not shaped as kubelet's has no volume name."""
    assert PublishCall("v", "/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/weights/mount").volume == "weights"
    assert [PublishCall("v", path).volume for path in ("", "/", "/t", "/a/b/c", "relative")] == [""] * 5


@pytest.mark.parametrize("changes", [{"volume_id": None}, {"volume_context": {"reference": REFERENCE, "referense": "x", **POD}}])
def test_an_observer_hears_of_what_the_engine_never_does(
    client: Client, engine: FakeEngine, told: Told, changes: dict[str, object]
) -> None:
    """A request that is refused before the engine is asked is told as refused, with the error that names the mistake."""
    with refused(grpc.StatusCode.INVALID_ARGUMENT):
        client.node.NodePublishVolume(publish_request(**changes))
    ((_, happening),) = told
    assert isinstance(happening, Refused)
    assert isinstance(happening.error, InvalidRequestError)
    assert engine.published == {}


def test_an_observer_hears_how_a_call_failed(client: Client, engine: FakeEngine, told: Told) -> None:
    """Errors of the engine, a wait that ended and a bug of ours are all told."""
    errors = [ConflictError("in use"), StillPullingError("1 of 2 GB"), ZeroDivisionError()]

    def fail() -> None:
        raise errors[len(told)]

    engine.fails = fail
    for code in (grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.ABORTED, grpc.StatusCode.INTERNAL):
        with refused(code):
            client.node.NodePublishVolume(publish_request())
    heard = [happening.error for _, happening in told if isinstance(happening, Refused)]
    assert [type(error) for error in heard] == [type(error) for error in errors]


@pytest.mark.parametrize("reference", ["https://user:canary@registry.example/x", "registry.example/x?sig=canary", ""])
def test_a_reference_that_does_not_parse_is_not_told(reference: str) -> None:
    """It may be a URL with a password or a signature in it."""
    assert identify(publish_request(volume_context={"reference": reference})).reference == ""


def test_a_context_that_is_refused_still_says_whose_it_is() -> None:
    """So that the refusal reaches the pod's owner."""
    call = identify(publish_request(volume_context={"reference": REFERENCE, "include": "*" * 5000, **POD}))
    assert (call.volume_id, call.pod) == ("csi-1", POD["csi.storage.k8s.io/pod.name"])


def test_a_broken_observer_breaks_no_publish() -> None:
    """Its exception is logged with a traceback, the next observer is told, and the body goes on."""
    heard: list[Happening] = []

    def broken(_call: PublishCall, _happening: Happening) -> None:
        raise ZeroDivisionError

    happening = Mounted.__new__(Mounted)
    with capture_logs() as lines, observed(publish_request(), [broken, lambda _call, happening: heard.append(happening)]) as tell:
        tell(happening)
    assert heard == [happening]
    assert [(line["event"], line["log_level"]) for line in lines] == [("observer failed", "error")]
