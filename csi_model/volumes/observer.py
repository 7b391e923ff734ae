"""What happens to a publish, from the first call to its end, told to whoever wants to know: the pod's events, metrics.

An observer is told by the thread that publishes. It takes note and returns at once: it waits for nobody and raises nothing. Calls for
one volume come one after another; kubelet calls again and again until a volume is mounted, and each of its calls is told anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from csi_model.oci.digest import Digest
    from csi_model.pull.progress import Progress

_PLUGIN = "kubernetes.io~csi"


@dataclass(frozen=True, slots=True)
class PublishCall:
    """Whom and what one call is for; equal for every retry. Text that the caller did not send, or that does not parse, is empty.

    What is said of the pod comes from kubelet where the CSIDriver object has podInfoOnMount, and is no proof of anything.
    """

    volume_id: str
    target: str
    reference: str = ""
    namespace: str = ""
    pod: str = ""
    pod_uid: str = ""

    @property
    def volume(self) -> str:
        """The volume's name in the pod, or the PersistentVolume's, from kubelet's ``…/kubernetes.io~csi/<name>/mount``."""
        parts = self._parts
        return parts[-2] if parts else ""

    @property
    def target_uid(self) -> str:
        """The pod's uid as kubelet's path has it, ``…/pods/<uid>/volumes/kubernetes.io~csi/…``; no pod's author can choose it."""
        parts = self._parts
        return parts[-5] if len(parts) > 5 and parts[-6] == "pods" else ""

    @property
    def _parts(self) -> tuple[str, ...]:
        parts = PurePosixPath(self.target).parts
        return parts if len(parts) > 2 and parts[-3] == _PLUGIN else ()


@dataclass(frozen=True, slots=True)
class Pulling:
    """Bytes are on their way: ``size`` in all, of which ``here`` were on the node before. Told once a call."""

    source: str
    size: int
    here: int


@dataclass(frozen=True, slots=True)
class Progressed:
    """The pull that the call waits for has come this far; told every few seconds."""

    progress: Progress


@dataclass(frozen=True, slots=True)
class Pulled:
    """Every byte is on the node: ``size`` in the registry, of which this pull fetched ``fetched`` in ``seconds``.

    Nothing was fetched for a model that was here already. Calls that wait for one pull are each told all that it fetched; a retry joins the
    layers under way as a pull of its own, and is told what came since.
    """

    manifest: Digest
    size: int
    fetched: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Mounted:
    """The volume is seen at its target, ``seconds`` after the call came. Not told when it was mounted there before."""

    manifest: Digest
    seconds: float


@dataclass(frozen=True, slots=True)
class Refused:
    """The call ends with an error, StillPullingError among them; one that is none of ours is a bug of ours."""

    error: Exception


Happening = Pulling | Progressed | Pulled | Mounted | Refused


if TYPE_CHECKING:
    # Called from many threads.
    Observer = Callable[[PublishCall, Happening], None]
    # The same, for the one call that it was made for.
    Tell = Callable[[Happening], None]


def tell_nobody(_happening: Happening) -> None:
    """For publishes that nobody observes."""
