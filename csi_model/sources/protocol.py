"""The two small interfaces that the pull pipeline needs from wherever models come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from csi_model.oci.descriptor import Descriptor
    from csi_model.oci.reference import AnyReference


class BlobReader(Protocol):
    """One pass over bytes ``[offset, end)`` of a blob. Used by one thread at a time; close it when done.

    A reader resumes a dropped connection by itself and delivers every byte once and in order. It does not check the digest: the
    pipeline does. It delivers exactly the bytes that were asked for, or raises.
    """

    def wait(self) -> None:
        """Return once a byte can be read or the end is reached, so that a buffer is taken only when it can be filled.

        Raises:
            UnavailableError: no progress for the configured time, after the retries.
        """

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer`` as far as the range has bytes left; return how many; 0 only at the end of the range.

        Raises:
            UnavailableError: the source went silent or kept failing, after the retries.
            CorruptContentError: the body is longer than the descriptor says, or ends before it after the retries.
            NotFoundError, UnauthenticatedError, DeniedError: what the source answered.
        """

    def close(self) -> None:
        """Let go of the connection; safe to call twice and from another thread, whose blocked read then ends with UnavailableError."""


class Source(Protocol):
    """One repository seen with one set of credentials. Safe to use from many threads."""

    @property
    def name(self) -> str:
        """What to call it in messages, such as ``registry.example/llm/tiny``; no credentials in it."""

    @property
    def authenticated(self) -> bool:
        """Whether credentials were needed to read from it, as far as is known now."""

    @property
    def ranges(self) -> bool | None:
        """Whether several parts of one blob may be read at once; None when that is not known yet."""

    def resolve(self, reference: AnyReference) -> Descriptor:
        """Which manifest or index the reference names now.

        Raises:
            NotFoundError, UnauthenticatedError, DeniedError, UnavailableError, InvalidRequestError.
        """

    def confirm(self, reference: AnyReference) -> None:
        """Have the source show that it delivers the manifest whose digest the reference names; nothing is taken for granted.

        Raises:
            NotFoundError, UnauthenticatedError, DeniedError, UnavailableError, InvalidRequestError, CorruptContentError.
        """

    def fetch_document(self, descriptor: Descriptor) -> bytes:
        """The bytes of a manifest or index, verified against the descriptor; at most 4 MiB.

        Raises:
            CorruptContentError: size or digest differ; otherwise as ``resolve``.
        """

    def open(self, descriptor: Descriptor, *, offset: int = 0, length: int | None = None) -> BlobReader:
        """Start to read a blob's bytes from ``offset``, ``length`` of them or all that are left.

        Where a ``length`` is given, reading raises RangesIgnoredError rather than read what comes before ``offset`` and drop it.
        """

    def close(self) -> None:
        """Close idle connections."""
