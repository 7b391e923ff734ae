"""Errors become codes by one table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest
from structlog.testing import capture_logs

from csi_model import errors
from csi_model.csi.status import CODES, code_of, message_of
from csi_model.generated.pluginregistration_pb2 import InfoRequest
from csi_model.generated.pluginregistration_pb2_grpc import RegistrationStub

from .conftest import Client, FakeEngine, publish_request, refused

if TYPE_CHECKING:
    from collections.abc import Iterator


def _subclasses(kind: type[errors.CsiModelError]) -> Iterator[type[errors.CsiModelError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _subclasses(child)


@pytest.mark.parametrize("kind", list(_subclasses(errors.CsiModelError)))
def test_every_error_is_mapped(kind: type[errors.CsiModelError]) -> None:
    """Each error class of ours finds an entry of its own or of a parent, so none ends as INTERNAL by oversight."""
    assert any(parent in CODES for parent in kind.__mro__)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidRequestError("x"), grpc.StatusCode.INVALID_ARGUMENT),
        (errors.MisconfiguredError("x"), grpc.StatusCode.FAILED_PRECONDITION),
        (errors.NotFoundError("x"), grpc.StatusCode.NOT_FOUND),
        (errors.ConflictError("x"), grpc.StatusCode.ALREADY_EXISTS),
        (errors.UnsupportedError("x"), grpc.StatusCode.FAILED_PRECONDITION),
        (errors.UnauthenticatedError("x"), grpc.StatusCode.UNAUTHENTICATED),
        (errors.DeniedError("x"), grpc.StatusCode.PERMISSION_DENIED),
        (errors.RegistryDeniedError("x"), grpc.StatusCode.PERMISSION_DENIED),
        (errors.BusyError("x"), grpc.StatusCode.ABORTED),
        (errors.StillPullingError("x"), grpc.StatusCode.ABORTED),
        (errors.NoSpaceError("x"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.UnavailableError("x"), grpc.StatusCode.UNAVAILABLE),
        (errors.DiskDeniedError("x"), grpc.StatusCode.UNAVAILABLE),
        (errors.DiskMissingError("x"), grpc.StatusCode.UNAVAILABLE),
        (errors.StateDamagedError("x"), grpc.StatusCode.UNAVAILABLE),
        (errors.CorruptContentError("x"), grpc.StatusCode.DATA_LOSS),
        (errors.MountError("x"), grpc.StatusCode.INTERNAL),
        (KeyError("x"), grpc.StatusCode.INTERNAL),
    ],
)
def test_an_error_has_its_code_over_the_wire(client: Client, engine: FakeEngine, error: Exception, code: grpc.StatusCode) -> None:
    """What the engine raises reaches the caller as the code that style and kubelet ask for, with empty details."""

    def fail() -> None:
        raise error

    engine.fails = fail
    assert code_of(error) is code
    with refused(code):
        client.node.NodePublishVolume(publish_request())


def test_a_bug_gets_a_fixed_text_and_a_traceback_in_the_log(client: Client, engine: FakeEngine) -> None:
    """The caller learns nothing of our insides; the log gets the frames, and no values of variables whatever renders it."""

    def fail() -> None:
        hidden = "canary-in-a-variable"
        raise ZeroDivisionError(len(hidden) and "planned")

    engine.fails = fail
    with (
        capture_logs() as lines,
        refused(grpc.StatusCode.INTERNAL, "NodePublishVolume failed inside csi-model; the driver's log has the details"),
    ):
        client.node.NodePublishVolume(publish_request())
    bugs = [line for line in lines if line["event"] == "call hit a bug"]
    assert len(bugs) == 1
    assert "ZeroDivisionError: planned" in bugs[0]["traceback"]
    assert "exc_info" not in bugs[0]


def test_a_call_that_we_do_not_define_is_unimplemented(client: Client) -> None:
    """Calls of capabilities that we do not claim say so, and are no bug; nor is a service that another socket serves."""
    from csi_model.generated import csi_pb2

    with refused(grpc.StatusCode.UNIMPLEMENTED, "csi-model does not offer NodeStageVolume"):
        client.node.NodeStageVolume(csi_pb2.NodeStageVolumeRequest(volume_id="a"))
    with refused(grpc.StatusCode.UNIMPLEMENTED, "csi-model does not offer ListVolumes"):
        client.controller.ListVolumes(csi_pb2.ListVolumesRequest())
    with refused(grpc.StatusCode.UNIMPLEMENTED):
        RegistrationStub(client.channel).GetInfo(InfoRequest())


def test_a_long_message_still_arrives_with_its_code(client: Client, engine: FakeEngine) -> None:
    """The trailers of a call hold 8 KiB; a longer message would turn the code into RESOURCE_EXHAUSTED, so it is cut."""
    error = errors.NotFoundError("ünläsbar " * 2000)

    def fail() -> None:
        raise error

    engine.fails = fail
    assert len(message_of(error).encode()) < 2100
    with refused(grpc.StatusCode.NOT_FOUND, "ünläsbar"):
        client.node.NodePublishVolume(publish_request())
