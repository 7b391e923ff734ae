"""Have observers follow a publish, and keep the publish safe from them."""

from __future__ import annotations

import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

from csi_model.csi.context import shown_reference, who_asks
from csi_model.volumes.observer import PublishCall, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from csi_model.generated import csi_pb2
    from csi_model.volumes.observer import Happening, Observer, Tell

log = structlog.get_logger(__name__)


@contextmanager
def observed(request: csi_pb2.NodePublishVolumeRequest, observers: Sequence[Observer]) -> Iterator[Tell]:
    """What the body tells reaches every observer, and so does the error that it ends with.

    An observer that raises is logged as the bug that it is; the publish goes on.
    """
    call = identify(request)

    def tell(happening: Happening) -> None:
        for observer in observers:
            try:
                observer(call, happening)
            except Exception as error:  # noqa: BLE001 - a bug of ours, whatever it is
                # As for a call's bug: without the values of variables, among which are secrets.
                frames = "".join(traceback.format_exception(error))
                log.error("observer failed", happening=type(happening).__name__, traceback=frames)  # noqa: TRY400

    try:
        yield tell
    except Exception as error:
        tell(Refused(error))
        raise


def identify(request: csi_pb2.NodePublishVolumeRequest) -> PublishCall:
    """Whom and what a request is for, however malformed it is."""
    who = who_asks(request.volume_context)
    return PublishCall(
        volume_id=request.volume_id,
        target=request.target_path,
        reference=shown_reference(request.volume_context),
        namespace=who.get("namespace", ""),
        pod=who.get("pod", ""),
        pod_uid=who.get("pod_uid", ""),
    )
