"""The records of the state database, as values. Times are Unix seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from csi_model.oci.digest import Digest


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """What a blob became: the digest and length of its layer file, and the XXH3-128 of each 4 MiB piece of it, 16 bytes each.

    ``guards`` are the repositories that have delivered the blob, to credentials only; empty when it is anybody's.
    """

    content: Digest
    size: int
    pieces: bytes
    guards: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ModelLayer:
    """A layer of a pulled model; ``content`` is None while it has not been pulled (a view may leave layers out)."""

    blob: Digest
    compression: str
    content: Digest | None = None


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """A model that was pulled.

    ``size`` counts what its layers weigh. ``authenticated`` says that every registry that delivered it wanted credentials. ``documents`` are the other
    small contents it needs, such as its config and the index that led to it. ``last_used`` is kept by ``publish``.
    """

    manifest: Digest
    format: str
    size: int
    authenticated: bool
    layers: tuple[ModelLayer, ...]
    documents: tuple[Digest, ...] = ()
    last_used: float | None = None


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a reference named when it was last asked for, at ``when``; 0 when only a volume's pin tells of it."""

    reference: str
    manifest: Digest
    when: float


@dataclass(frozen=True, slots=True)
class Publication:
    """A view that was made to appear at a target path, for a volume."""

    target: str
    volume_id: str
    reference: str
    manifest: Digest
    view_id: str
    path: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    when: float


@dataclass(frozen=True, slots=True)
class Counts:
    """How many models were pulled, references resolved, views built and targets published, and not forgotten since."""

    models: int
    references: int
    views: int
    publications: int


@dataclass(frozen=True, slots=True)
class ViewRecord:
    """A view that was built: what it shows, how it is mounted, and what it weighs."""

    view_id: str
    manifest: Digest
    strategy: str
    path: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    bytes: int
    inodes: int
    last_used: float
