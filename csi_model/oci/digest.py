"""Digests: the names of bytes.

Grammar and algorithms: OCI image-spec, descriptor.md, "Digests".
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Self

from csi_model.errors import InvalidRequestError

_LENGTHS = {"sha256": 64, "sha512": 128}
_HEX = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A validated digest, such as ``sha256:44136f…``; ``str()`` gives the text form."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: object) -> Self:
        """Parse ``algorithm:hex``.

        Raises:
            InvalidRequestError: not a string, an algorithm other than sha256 and sha512, or hex of the wrong length or case.
        """
        if not isinstance(text, str):
            msg = f"a digest is a string such as sha256:<64 hex digits>, not {type(text).__name__}"
            raise InvalidRequestError(msg)
        algorithm, colon, encoded = text.partition(":")
        if not colon or _LENGTHS.get(algorithm) != len(encoded) or not _HEX.fullmatch(encoded):
            msg = f"{text[:160]!r} is not a digest; expected sha256:<64 lower-case hex digits> or sha512:<128>"
            raise InvalidRequestError(msg)
        return cls(algorithm, encoded)

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> Self:
        """The SHA-256 digest of ``data``."""
        return cls("sha256", hashlib.sha256(data).hexdigest())

    @property
    def short(self) -> str:
        """The first twelve hex digits, for people."""
        return self.hex[:12]

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"
