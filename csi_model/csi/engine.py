"""What the CSI services need from the use cases: declared by the caller, so that the services are tested against a fake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from csi_model.volumes.observer import Tell
    from csi_model.volumes.request import VolumeRequest


class Usage(Protocol):
    """How large a view is; its own files, not the disk they lie on."""

    @property
    def bytes(self) -> int:
        """The sum of its files' lengths."""

    @property
    def inodes(self) -> int:
        """Its files, directories and links."""


class Engine(Protocol):
    """Publishing and unpublishing. Safe to use from many threads."""

    def publish(
        self,
        *,
        volume_id: str,
        target: str,
        request: VolumeRequest,
        secrets: Mapping[str, str],
        deadline: float,
        tell: Tell,
    ) -> None:
        """Make the view appear at ``target``, waiting for a pull until ``deadline`` (``time.monotonic()``) at the longest.

        ``tell`` is told what happens; the error that it ends with is the caller's to tell.

        Raises:
            StillPullingError: the deadline came first; the pull goes on.
            UnavailableError: ``stop`` was called.
            CsiModelError: whatever else went wrong.
        """

    def unpublish(self, *, volume_id: str, target: str) -> None:
        """Undo ``publish``; nothing to undo is no error."""

    def stats(self, *, volume_id: str, path: str) -> Usage:
        """The size of the view that the volume shows at ``path``.

        Raises:
            NotFoundError: this volume is not published there.
        """

    def stop(self) -> None:
        """Wake every waiting ``publish`` for good; what is published stays."""
