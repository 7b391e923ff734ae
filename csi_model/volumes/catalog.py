"""What is on this node: images for people and machines, and their removal. Reading takes no lock and changes nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from csi_model.errors import BusyError, NotFoundError
from csi_model.linux.mountinfo import read_mounts
from csi_model.mount.views import shown_view

if TYPE_CHECKING:
    from collections.abc import Mapping

    from csi_model.linux.mountinfo import Mount
    from csi_model.oci.digest import Digest
    from csi_model.oci.reference import AnyReference
    from csi_model.store.records import ModelRecord, Resolution
    from csi_model.store.store import Store
    from csi_model.volumes.views import Views


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """One reference on this node. Sizes are bytes on disk: ``own`` is what its removal frees, ``shared`` what other models need too.

    ``last_used`` is in Unix seconds; ``targets`` are the paths where it is published.
    """

    reference: str
    manifest: Digest
    format: str
    own: int
    shared: int
    last_used: float | None
    targets: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes on disk in all."""
        return self.own + self.shared


def images(store: Store) -> tuple[ImageEntry, ...]:
    """Every reference that is here, by name."""
    models = {model.manifest: model for model in store.state.models()}
    contents = {manifest: _contents(store, model) for manifest, model in models.items()}
    users = Counter(content for held in contents.values() for content in held)
    published: dict[Digest, list[str]] = {}
    for publication in store.state.publications():
        published.setdefault(publication.manifest, []).append(publication.target)
    entries = []
    for resolution in store.state.resolutions():
        model = models.get(resolution.manifest)
        if model is None:
            continue
        held = contents[model.manifest]
        shared = sum(size for content, size in held.items() if users[content] > 1)
        entries.append(
            ImageEntry(
                reference=resolution.reference,
                manifest=model.manifest,
                format=model.format,
                own=sum(held.values()) - shared,
                shared=shared,
                last_used=model.last_used,
                targets=tuple(published.get(model.manifest, ())),
            )
        )
    return tuple(entries)


def remove(store: Store, views: Views, reference: AnyReference) -> int:
    """Forget the reference and delete all that nothing needs any more; returns the bytes freed. Only while no pull runs.

    Models that lost their last name earlier, such as those that a volume's pin kept then, go too. The reference is forgotten last: a
    removal that failed half-way can be repeated.

    Raises:
        NotFoundError: the reference is not here.
        BusyError: it is published, or mounted without a record; the targets are named. Or a view cannot be unmounted.
    """
    name = str(reference)
    resolution = store.state.resolution(name)
    if resolution is None:
        msg = f"{name} is not on this node; `csi-model images` lists what is"
        raise NotFoundError(msg)
    shown = _shown(store)
    _demand_unused(store, resolution, shown)
    held = store.state.held(but=name) | shown.keys()
    gone = [model.manifest for model in store.state.models() if model.manifest not in held]
    views.remove(gone)
    for manifest in gone:
        store.state.forget_model(manifest)
    unneeded = frozenset(store.content.digests()) - store.state.contents_of(held)
    freed = 0
    for content in unneeded:
        freed += store.content.size(content)
        store.content.remove(content)
    store.state.forget_contents(unneeded)
    store.state.forget(name)
    return freed


def _demand_unused(store: Store, resolution: Resolution, shown: Mapping[Digest, str]) -> None:
    others = (other for other in store.state.resolutions() if other.reference != resolution.reference)
    named_otherwise = any(other.manifest == resolution.manifest for other in others)
    targets = [
        publication.target
        for publication in store.state.publications()
        if publication.reference == resolution.reference or (publication.manifest == resolution.manifest and not named_otherwise)
    ]
    if not targets and not named_otherwise and resolution.manifest in shown:
        targets = [shown[resolution.manifest]]
    if targets:
        msg = f"{resolution.reference} is published at {', '.join(targets)}; unpublish it first (`csi-model unmount TARGET`)"
        raise BusyError(msg)


def _shown(store: Store) -> dict[Digest, str]:
    """The models of which a mount elsewhere than in the state directory shows a view, recorded as published or not; and where one is.

    Their files must stay: a folder of links that is emptied is empty for the pod, too.
    """
    seen = {view: mount.target for mount in read_mounts() if (view := shown_view(mount, store.views)) and not _is_place(mount, view, store)}
    return {view.manifest: seen[view.view_id] for view in store.state.views() if view.view_id in seen}


def _is_place(mount: Mount, view_id: str, store: Store) -> bool:
    # The state directory may be seen at several paths.
    return Path(mount.target).parts[-2:] == (store.mounts.name, view_id)


def _contents(store: Store, model: ModelRecord) -> dict[Digest, int]:
    """The contents of a model that are on disk, with their sizes."""
    wanted = store.state.contents_of([model.manifest])
    return {content: store.content.size(content) for content in wanted if store.content.has(content)}
