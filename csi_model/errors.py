"""Every failure that csi-model can name.

Code below the edges raises these and knows nothing of gRPC codes or exit codes; the edges (``csi/``, ``cli/``) hold one table each
that turns them into codes. A message names the thing that failed and the next step to take, and never holds a secret.
"""

from __future__ import annotations


class CsiModelError(Exception):
    """The root of all our errors; raise one of its subclasses."""


class InvalidRequestError(CsiModelError):
    """What was asked for is malformed: a bad reference, attribute, path or configuration key."""


class MisconfiguredError(InvalidRequestError):
    """What the driver's own configuration or environment names cannot be used: nothing that whoever asks could mend."""


class NotFoundError(CsiModelError):
    """A tag, manifest, blob, path or volume that does not exist."""


class ConflictError(CsiModelError):
    """The target is already in use with other arguments."""


class UnsupportedError(CsiModelError):
    """A format, feature or kernel capability that csi-model does not have."""


class UnauthenticatedError(CsiModelError):
    """The registry asks for credentials, or refused those that it was given (401)."""


class DeniedError(CsiModelError):
    """The configuration or a rule of ours forbids it, whoever asks."""


class RegistryDeniedError(DeniedError):
    """The registry knows the credentials and does not let them have it (403)."""


class BusyError(CsiModelError):
    """Another operation is pending for this volume or directory; try again."""


class StillPullingError(BusyError):
    """The wait ended before the pull did; the pull goes on and a retry joins it."""


class NoSpaceError(CsiModelError):
    """The disk or the budget cannot hold it."""


class UnavailableError(CsiModelError):
    """A registry or service is silent, overloaded or stopping; a later retry may succeed."""


class DiskError(UnavailableError):
    """The node's own disk failed: an I/O error, a read-only filesystem, too many open files."""


class DiskDeniedError(DiskError):
    """The node's own disk does not let us: not root, an immutable file, a security module."""


class DiskMissingError(DiskError):
    """What the node's own disk should have is not there: somebody took it away, or it was never stored."""


class RangesIgnoredError(UnavailableError):
    """A registry sends a whole blob where a part was asked for; the blob can be read in one go only."""


class StoppedError(UnavailableError):
    """The driver is stopping, or the work was stopped because nobody waited for it; a retry goes on with what is on disk."""


class CorruptContentError(CsiModelError):
    """Bytes whose size or digest is not what their descriptor says."""


class StateDamagedError(DiskError, CorruptContentError):
    """The state database is damaged: a fault of the node's disk before anything else, for it spoils no model and stops them all."""


class MountError(CsiModelError):
    """The kernel refused a mount operation."""
