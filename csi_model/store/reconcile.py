"""What a starting writer sets right: leftovers of crashes go, and records that the disk contradicts.

It never touches views, mounts or publications: those are settled against the kernel's mount table, which the store does not read.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from csi_model.store.faults import disk_errors
from csi_model.store.ingest import KEPT

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
    collect(content, state, now=time.time())


def collect(content: ContentStore, state: State, *, now: float) -> None:
    """Remove content that no model needs, such as layers of a pull that failed at another one, 24 hours after it was committed.

    Within that day the pull's next try takes it for its own. A running one does so before anything is recorded of its model, so call this
    while none runs, and none can begin. What outlasts that, the pull of a layer that nobody wants any more, commits young content.
    """
    needed = state.contents_of({model.manifest for model in state.models()} | state.held())
    unneeded = frozenset(digest for digest in content.digests() if digest not in needed and now - _committed(content, digest) > KEPT)
    for digest in unneeded:
        log.info("content removed that no model needs", digest=str(digest), size=content.size(digest))
        content.remove(digest)
    if unneeded:
        state.forget_contents(unneeded)


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


def _committed(content: ContentStore, digest: Digest) -> float:
    """When it was given its name, in Unix seconds, or later: views that link to it set this time, too, and its mtime says nothing."""
    with disk_errors(f"cannot look at content {digest}"):
        return content.path(digest).stat().st_ctime


def _remove_probes(directory: Path) -> None:
    with disk_errors(f"cannot tidy {directory}"):
        for probe in directory.glob(".probe-*"):
            probe.unlink()
