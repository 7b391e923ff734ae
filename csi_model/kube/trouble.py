"""What this node's admin should know: decisions over values. What goes wrong for many pods is said once, of the node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi_model.errors import (
    DiskError,
    InvalidRequestError,
    MisconfiguredError,
    NoSpaceError,
    RegistryDeniedError,
    StoppedError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from csi_model.kube.notes import Kind, Note, Subject, presentable
from csi_model.mount.strategy import LADDER, kernel_best
from csi_model.oci.reference import Reference, parse_reference
from csi_model.pull.progress import amount

if TYPE_CHECKING:
    from csi_model.linux.kernel import KernelVersion
    from csi_model.mount.strategy import Ladder
    from csi_model.volumes.observer import PublishCall


def of_refusal(node: Subject, call: PublishCall, error: Exception) -> Note | None:
    """A disk that is full or fails, a configuration that cannot be used, and a registry that is silent or refuses, once for each host.

    Other errors are their pod's own.
    """
    if isinstance(error, MisconfiguredError):
        return _warning(node, "DriverMisconfigured", str(error))
    if isinstance(error, NoSpaceError | DiskError):
        return _warning(node, "NoSpace" if isinstance(error, NoSpaceError) else "DiskFailed", str(error))
    host = _host(call.reference)
    if host is None or isinstance(error, StoppedError):
        return None
    if isinstance(error, UnavailableError):
        return _warning(node, "RegistryUnavailable", f"models of {host} cannot be pulled: {error}", topic=host)
    if isinstance(error, UnauthenticatedError | RegistryDeniedError):
        # Which credentials were tried is for the pod's owner to read.
        pod = f" {call.namespace}/{call.pod}" if call.pod else ""
        return _warning(node, "RegistryRefused", f"{host} refuses the credentials of volumes; the events of pod{pod} say which", topic=host)
    return None


def of_ladder(node: Subject, ladder: Ladder, version: KernelVersion) -> Note | None:
    """A rung lower than the kernel could do, with the reason why the better one does not work; a forced rung that works is the admin's own choice."""
    try:
        best = ladder.best
    except UnsupportedError as error:
        return _warning(node, "MountUnavailable", str(error))
    if ladder.forced is not None:
        return None
    expected = kernel_best(version)
    if LADDER.index(best) <= LADDER.index(expected):
        return None
    reasons = "; ".join(rung.reason for rung in ladder.rungs if rung.strategy is expected)
    text = f"volumes are mounted by {best.value} where kernel {version} can do {expected.value}: {reasons}; `csi-model doctor` tells more"
    return _warning(node, "MountDegraded", text)


def of_space(node: Subject, free: int, reserve: int) -> Note | None:
    """A disk with nothing left beside the reserve: what runs and ends is not touched, and nothing can be pulled."""
    if free > reserve:
        return None
    text = f"{amount(free)} are free on the state directory's disk, of which {amount(reserve)} are kept in reserve: nothing can be pulled"
    return _warning(node, "NoSpace", f"{text}; remove models (`csi-model images` lists them), or give it a larger disk")


def _warning(node: Subject, reason: str, text: str, *, topic: str = "") -> Note:
    return Note(node, Kind.WARNING, reason, presentable(text), topic)


def _host(reference: str) -> str | None:
    """The registry that a reference names; None for a layout, and for text that is none."""
    try:
        parsed = parse_reference(reference)
    except InvalidRequestError:
        return None
    return parsed.registry if isinstance(parsed, Reference) else None
