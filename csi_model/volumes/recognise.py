"""Publications that the state database has lost, recognised by what is mounted."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from csi_model.mount.views import mounted_strategy
from csi_model.tree.view import Totals
from csi_model.volumes.views import View

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from csi_model.oci.digest import Digest
    from csi_model.store.state import State
    from csi_model.volumes.request import VolumeRequest


def recognise(state: State, view_id: str, request: VolumeRequest, pinned: Digest | None) -> View | None:
    """The view of this id, if it is what the request asks for; None when it is not, or cannot be told.

    A view's id is made of its manifest and selection, so that one which is computed anew proves both. That the reference named this manifest
    when the volume was published is lost with the record. The volume's pin tells, where it is left; else any manifest will do that no
    other reference alone is known to name: the tag may have moved since, or what it named may be lost as well.
    """
    named: dict[Digest, set[str]] = {}
    for resolution in state.resolutions():
        named.setdefault(resolution.manifest, set()).add(resolution.reference)
    for manifest in _candidates(state, view_id, request, pinned):
        view = View(manifest, request.selection)
        if view.id == view_id and (manifest == pinned or str(request.reference) in named.get(manifest, {str(request.reference)})):
            return view
    return None


def remember_view(state: State, view: View, target: Path) -> None:
    """Record a view again that is seen at ``target``, with the size that it is seen to have, where its record is lost."""
    strategy = mounted_strategy(target)
    if strategy is not None and state.view(view.id) is None:
        state.record_view(view.record(strategy, _measure(target)))


def _candidates(state: State, view_id: str, request: VolumeRequest, pinned: Digest | None) -> tuple[Digest, ...]:
    if pinned is not None:
        return (pinned,)
    record = state.view(view_id)
    known = {model.manifest for model in state.models()} | ({record.manifest} if record is not None else set())
    digest = request.reference.digest
    # A digest that is none of a manifest is an index's, and then any of its manifests may be this node's.
    return (digest,) if digest in known else tuple(known)


def _measure(root: Path) -> Totals:
    """As ``tree.view.totals``, of what is mounted."""
    inodes = {(status.st_dev, status.st_ino): status for status in _statuses(root)}
    return Totals(sum(status.st_size for status in inodes.values() if stat.S_ISREG(status.st_mode)), len(inodes))


def _statuses(root: Path) -> Iterator[os.stat_result]:
    yield root.lstat()
    for folder, directories, files in os.walk(root):
        for name in (*directories, *files):
            yield os.lstat(os.path.join(folder, name))  # noqa: PTH118 - of ten thousand files, paths would cost more than the calls
