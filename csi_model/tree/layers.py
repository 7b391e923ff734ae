"""Layers as the tree sees them: tar entries or one raw file, and the digest of the layer file that holds their bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from csi_model.oci.digest import Digest
    from csi_model.tree.entries import TarEntry


@dataclass(frozen=True, slots=True)
class TarLayer:
    """A tar's entries; they land below ``prefix`` after the leading directory ``strip`` is taken off their names.

    ``digest`` names the uncompressed tar. With ``whiteouts`` the ``.wh.`` names delete from lower layers; without, they are names.
    """

    digest: Digest
    entries: tuple[TarEntry, ...]
    whiteouts: bool
    prefix: str = ""
    strip: str = ""


@dataclass(frozen=True, slots=True)
class FileLayer:
    """A raw layer of ``size`` bytes, which is the file at ``path``; ``mode`` holds permission bits."""

    digest: Digest
    size: int
    path: str
    mode: int = 0o444
