"""Placements: where a layer's bytes land in the tree of a view."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from csi_model.oci.descriptor import Descriptor
    from csi_model.oci.digest import Digest


class Compression(enum.Enum):
    """How a blob's bytes must be decoded to become its layer file."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"
    DETECT = "detect"
    """Told by the first bytes: Docker's ``…diff.tar`` may really be compressed."""


@dataclass(frozen=True, slots=True)
class FilePlacement:
    """A raw layer: the blob is the file at ``path`` (relative, ``/``-separated, already checked), with these permission bits."""

    layer: Descriptor
    path: str
    mode: int = 0o444


@dataclass(frozen=True, slots=True)
class TarPlacement:
    """A tar layer: its entries land below ``prefix`` after the leading ``strip`` directory is taken off their names.

    ``whiteouts`` says that ``.wh.`` names delete from lower layers (images) instead of being refused or kept as names (artifacts).
    ``diff_id`` is what the uncompressed bytes must hash to, where the format tells it.
    """

    layer: Descriptor
    compression: Compression
    diff_id: Digest | None = None
    whiteouts: bool = False
    prefix: str = ""
    strip: str = ""


Placement = FilePlacement | TarPlacement


@dataclass(frozen=True, slots=True)
class ModelLayout:
    """What a manifest is (``format``, for people: "OCI image", "ModelPack", "ORAS artifact") and where its layers land, lowest first."""

    format: str
    placements: tuple[Placement, ...]
