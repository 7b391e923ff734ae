"""Trees of views, from layers whose files the disk does not give back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from csi_model.errors import DiskError, DiskMissingError
from csi_model.formats.placement import Compression, TarPlacement
from csi_model.oci.descriptor import Descriptor
from csi_model.oci.digest import Digest
from csi_model.store.content import ContentStore
from csi_model.tree.view import Selection
from csi_model.volumes.trees import Layer, tree_of
from tests.fakes.models import OCI_TAR, tar_of

if TYPE_CHECKING:
    from pathlib import Path

TAR = tar_of({"model.bin": b"weights"})
DIGEST = Digest.of(TAR)


def test_a_layer_that_cannot_be_read_is_the_disks_fault(tmp_path: Path) -> None:
    """One that is gone and one whose reading fails are told as the disk's, which a pod's owner can tell from a bug of ours."""
    content = ContentStore(tmp_path)
    layer = Layer(TarPlacement(Descriptor(OCI_TAR, DIGEST, len(TAR)), Compression.NONE), DIGEST, len(TAR))
    with pytest.raises(DiskMissingError, match=str(DIGEST)):
        tree_of(content, [layer], Selection())
    content.path(DIGEST).mkdir(parents=True)  # opens, and every read of it fails
    with pytest.raises(DiskError, match=str(DIGEST)):
        tree_of(content, [layer], Selection())
