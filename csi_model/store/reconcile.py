"""What a starting writer sets right: leftovers of crashes go, and records that the disk contradicts.

It never touches views, mounts or publications: those are settled against the kernel's mount table, which the store does not read.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from csi_model.store.faults import disk_errors

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from csi_model.oci.digest import Digest
    from csi_model.store.content import ContentStore
    from csi_model.store.state import State

log = structlog.get_logger(__name__)


def reconcile(root: Path, content: ContentStore, state: State) -> None:
    """Bring the store to where no crash ever happened. Called by the one writer before anybody uses the store."""
    content.remove_litter()
    content.sweep(now=time.time())
    for path in (root / "content", root / "views"):
        _remove_probes(path)
    drop_damaged(content, state.sizes())


def drop_damaged(content: ContentStore, sizes: Iterable[tuple[Digest, int]]) -> None:
    """Remove content whose length is not what was recorded when it was committed.

    Such a file cannot be what its name says, so keeping it, even aside, keeps nothing of value and may keep 100 GB of it. Were the
    record wrong instead, the loss is one more pull. A live mount of it holds the file open and is not disturbed; views that nobody has
    published go (``ContentStore.drop``).
    """
    for digest, size in sizes:
        if content.has(digest) and (found := content.size(digest)) != size:
            log.error("damaged content removed; the next pull brings it back", digest=str(digest), size=size, found=found)
            content.drop(digest)


def _remove_probes(directory: Path) -> None:
    with disk_errors(f"cannot tidy {directory}"):
        for probe in directory.glob(".probe-*"):
            probe.unlink()
