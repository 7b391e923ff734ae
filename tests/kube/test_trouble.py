"""Whom a refusal blames: the registry for what it answered, the disk for what it did, and nobody for what the configuration forbids."""

from __future__ import annotations

import pytest

from csi_model import errors
from csi_model.kube.notes import Subject
from csi_model.kube.reasons import reason_of
from csi_model.kube.trouble import of_refusal
from csi_model.registry.origin import Origin, Url
from csi_model.registry.settings import HttpSettings

from .conftest import NODE, publish_call

SAID: dict[type[errors.CsiModelError], tuple[str | None, str | None]] = {
    errors.InvalidRequestError: ("InvalidVolume", None),
    errors.MisconfiguredError: ("DriverMisconfigured", "DriverMisconfigured"),
    errors.NotFoundError: ("ModelNotFound", None),
    errors.ConflictError: ("VolumeConflict", None),
    errors.UnsupportedError: ("ModelUnsupported", None),
    errors.UnauthenticatedError: ("ModelUnauthorized", "RegistryRefused"),
    errors.DeniedError: ("ModelForbidden", None),
    errors.RegistryDeniedError: ("ModelForbidden", "RegistryRefused"),
    errors.BusyError: (None, None),
    errors.StillPullingError: (None, None),
    errors.NoSpaceError: ("NoSpace", "NoSpace"),
    errors.UnavailableError: ("RegistryUnavailable", "RegistryUnavailable"),
    errors.DiskError: ("DiskFailed", "DiskFailed"),
    errors.DiskDeniedError: ("DiskFailed", "DiskFailed"),
    errors.DiskMissingError: ("DiskFailed", "DiskFailed"),
    errors.StateDamagedError: ("DiskFailed", "DiskFailed"),
    errors.RangesIgnoredError: ("RegistryUnavailable", "RegistryUnavailable"),
    errors.StoppedError: (None, None),
    errors.CorruptContentError: ("ModelCorrupt", None),
    errors.MountError: ("MountFailed", None),
}


def said_of_node(error: Exception) -> str | None:
    note = of_refusal(Subject.node(NODE), publish_call(), error)
    return note.reason if note else None


@pytest.mark.parametrize("kind", SAID)
def test_pod_and_node_are_told_what_failed(kind: type[errors.CsiModelError]) -> None:
    """Each kind of error has its reason on the pod, and one on the node where more pods than this one are concerned."""
    assert (reason_of(kind("x")), said_of_node(kind("x"))) == SAID[kind]


def test_every_kind_is_decided() -> None:
    """A new kind of error must be given a place in the table above."""
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.CsiModelError)}
    assert kinds - {errors.CsiModelError} == set(SAID)


def test_a_redirect_that_is_not_followed_is_no_refusal_of_credentials() -> None:
    """A registry that redirects to a host without TLS has refused nobody; the pod's event names the key that would allow it."""
    asked = Url(Origin("https", "registry.example", 443), "/v2/llm/tiny/blobs/x")
    plain = Url(Origin("http", "registry.example", 80), "/v2/llm/tiny/blobs/x")
    for base in (asked, plain):
        with pytest.raises(errors.DeniedError) as caught:
            Url.parse("http://storage.example/x", base=base, what="a redirect", settings=HttpSettings())
        assert reason_of(caught.value) == "ModelForbidden"
        assert said_of_node(caught.value) is None
