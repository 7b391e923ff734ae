"""Guards: whose a layer's bytes are while they are fetched, and after that.

Cached does not mean allowed (docs/decisions/0005).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from csi_model.formats.placement import Compression
    from csi_model.sources.protocol import Source

UNKNOWN = "?"
"""The guard of a layer that was here already, brought nobody knows by whom; no repository is called so."""


def guard_of(source: Source) -> str | None:
    """The source's repository if it delivers to credentials only, else None: what it delivers is anybody's."""
    return source.name if source.authenticated else None


def ingest_name(source: Source, compression: Compression, apart: str | None = None) -> str:
    """Which of a blob's ingests an attempt goes on from: what credentials brought is for the same repository's next attempt alone.

    Else a registry that lacks the blob could have others' bytes completed for it. ``apart`` is what sets it apart from work under way.
    """
    return "-".join([compression.value, *(hashlib.sha256(part.encode()).hexdigest()[:16] for part in (guard_of(source), apart) if part)])
