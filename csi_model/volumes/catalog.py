"""What is on this node: images for people and machines, and their removal. Reading takes no lock and changes nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from csi_model.errors import BusyError, NotFoundError

if TYPE_CHECKING:
    from csi_model.oci.digest import Digest
    from csi_model.oci.reference import AnyReference
    from csi_model.store.records import ModelRecord
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
    """Forget the reference and delete what nothing else needs; returns the bytes freed. Only while no pull runs.

    Raises:
        NotFoundError: the reference is not here.
        BusyError: it is published; the targets are named.
    """
    name = str(reference)
    resolution = store.state.resolution(name)
    if resolution is None:
        msg = f"{name} is not on this node; `csi-model images` lists what is"
        raise NotFoundError(msg)
    targets = [publication.target for publication in store.state.publications() if publication.manifest == resolution.manifest]
    others = [other for other in store.state.resolutions() if other.manifest == resolution.manifest and other.reference != name]
    if targets and not others:
        msg = f"{name} is published at {', '.join(targets)}; unpublish it first (`csi-model unmount TARGET`)"
        raise BusyError(msg)
    gone = store.state.forget(name)
    views.remove(gone)
    for manifest in gone:
        store.state.forget_model(manifest)
    unneeded = store.state.unreferenced(store.content.digests())
    freed = 0
    for content in unneeded:
        freed += store.content.size(content)
        store.content.remove(content)
    store.state.forget_contents(unneeded)
    return freed


def _contents(store: Store, model: ModelRecord) -> dict[Digest, int]:
    """The contents of a model that are on disk, with their sizes."""
    wanted = store.state.contents_of([model.manifest])
    return {content: store.content.size(content) for content in wanted if store.content.has(content)}
