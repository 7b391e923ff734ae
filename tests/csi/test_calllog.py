"""One line per call, and never a secret in it."""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING

import grpc
import pytest
import structlog
from structlog.testing import capture_logs

from csi_model.csi.calllog import describe
from csi_model.generated import csi_pb2

from .conftest import REFERENCE, Client, FakeEngine, mount_capability, publish_request, refused

if TYPE_CHECKING:
    from collections.abc import Iterator

CANARY = "c4n4ry-7f3a"
TOKENS = {"csi.storage.k8s.io/serviceAccount.tokens": f'{{"aud": {{"token": "{CANARY}"}}}}'}


@pytest.fixture
def everything_logged() -> Iterator[io.StringIO]:
    """All that structlog and logging write, at debug, rendered as richly as it gets."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.dev.ConsoleRenderer(colors=False)],
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    yield stream
    structlog.reset_defaults()
    root.removeHandler(handler)
    root.setLevel(level)


def test_a_call_is_one_line_with_what_matters(client: Client) -> None:
    """Method, volume, target, pod, reference, code and seconds of a publish, at info."""
    context = {"reference": f"oci://{REFERENCE}", "csi.storage.k8s.io/pod.name": "web-0", "csi.storage.k8s.io/pod.namespace": "shop"}
    with capture_logs() as lines:
        client.node.NodePublishVolume(publish_request(volume_context=context))
    (line,) = lines
    assert line.pop("seconds") < 5
    assert line == {
        "event": "call",
        "log_level": "info",
        "method": "NodePublishVolume",
        "code": "OK",
        "volume_id": "csi-1",
        "target": publish_request().target_path,
        "namespace": "shop",
        "pod": "web-0",
        "reference": REFERENCE,
    }


def test_a_failed_call_says_how_it_ended(client: Client) -> None:
    """A refusal is a warning with its code and text; a call about no volume is only worth debugging."""
    with capture_logs() as lines:
        with refused(grpc.StatusCode.INVALID_ARGUMENT):
            client.node.NodePublishVolume(publish_request(target_path=None))
        client.identity.Probe(csi_pb2.ProbeRequest())
    assert [(line["log_level"], line["method"], line["code"]) for line in lines] == [
        ("warning", "NodePublishVolume", "INVALID_ARGUMENT"),
        ("debug", "Probe", "OK"),
    ]
    assert "target_path is missing" in lines[0]["error"]


def test_no_secret_reaches_any_log(client: Client, engine: FakeEngine, everything_logged: io.StringIO) -> None:
    """Secrets, tokens, mount options and passwords in URLs are in no log at debug: on success, refusal, failure and a bug of ours."""
    secrets = {".dockerconfigjson": CANARY, "password": CANARY}
    context = {"reference": REFERENCE, **TOKENS}
    client.node.NodePublishVolume(publish_request(secrets=secrets, volume_context=context))
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        client.node.NodePublishVolume(publish_request(secrets=secrets, volume_capability=mount_capability(mount_flags=[CANARY])))
    for reference in (
        f"https://user:{CANARY}@registry.example/x",
        f"https://registry.example/x?sig={CANARY}",
        f"oci-layout+s3://k:{CANARY}@b/c",
    ):
        with refused(grpc.StatusCode.INVALID_ARGUMENT):
            client.node.NodePublishVolume(publish_request(secrets=secrets, volume_context={"reference": reference, **TOKENS}))

    def fail() -> None:
        raise ZeroDivisionError

    engine.fails = fail
    with refused(grpc.StatusCode.INTERNAL):
        client.node.NodePublishVolume(publish_request(secrets=secrets, volume_context=context))
    create = csi_pb2.CreateVolumeRequest(
        name="a", volume_capabilities=[mount_capability()], parameters={"reference": REFERENCE, **TOKENS}, secrets=secrets
    )
    client.controller.CreateVolume(create)
    client.controller.DeleteVolume(csi_pb2.DeleteVolumeRequest(volume_id="a", secrets=secrets))
    written = everything_logged.getvalue()
    assert written.count("NodePublishVolume") >= 6
    assert "ZeroDivisionError" in written
    assert CANARY not in written


def test_a_description_is_short(client: Client) -> None:
    """A caller cannot fill the log with a long id or path, nor with a reference that does not parse."""
    told = describe(publish_request(volume_id="x" * 9000, target_path="/" + "y" * 9000, volume_context={"reference": "z" * 9000}))
    assert max(len(value) for value in told.values()) <= 257
    assert told["reference"] == "(malformed)"
