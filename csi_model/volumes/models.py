"""Models: from a reference to verified layer files on this node.

``Models.find`` answers at once, without the network, when everything is here; ``Models.fetch`` joins or starts a flight that resolves,
pulls and records, and that goes on when its caller's deadline has passed.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from structlog.contextvars import bind_contextvars, bound_contextvars

from csi_model.errors import NotFoundError, StillPullingError
from csi_model.formats.placement import Compression, FilePlacement, Placement
from csi_model.oci.reference import Reference
from csi_model.pull.counters import Counters
from csi_model.pull.puller import LayerWant, Puller
from csi_model.registry.credentials import Keyring
from csi_model.steps import step
from csi_model.store.reconcile import collect
from csi_model.store.records import ModelLayer, ModelRecord
from csi_model.tree.view import Selection
from csi_model.volumes import documents
from csi_model.volumes.access import Access
from csi_model.volumes.flight import Flight, Flights
from csi_model.volumes.request import PullPolicy
from csi_model.volumes.trees import Layer, needed, unpulled
from csi_model.volumes.writing import Writing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from csi_model.config.model import Config
    from csi_model.oci.digest import Digest
    from csi_model.oci.reference import AnyReference
    from csi_model.pull.flight import Pull
    from csi_model.pull.progress import Progress
    from csi_model.registry.credentials import Credential
    from csi_model.sources.connect import Connector
    from csi_model.sources.protocol import Source
    from csi_model.store.store import Store
    from csi_model.volumes.documents import ModelDocuments
    from csi_model.volumes.request import VolumeRequest

log = structlog.get_logger(__name__)

_LAYER_LINGER = 1.0
"""Lingering is the model flight's business; layers stop soon after the last flight that wants them."""
_REMEMBERED = 64
"""Manifests whose documents are kept parsed in memory."""


@dataclass(frozen=True, slots=True)
class ReadyModel:
    """A model all of whose layers, lowest first, are on this node, but for raw ones that nothing in the view needs."""

    manifest: Digest
    format: str
    layers: tuple[Layer, ...]


class ModelFlight(Flight[ReadyModel]):
    """The work of getting one model here; tells what it resolved and how far the pull is."""

    def __init__(self, linger: float) -> None:
        super().__init__(linger)
        self.manifest: Digest | None = None
        self.known: ModelDocuments | None = None
        self.pull: Pull | None = None
        self.source = ""
        self.began = time.monotonic()
        self._fetched_before = 0

    @property
    def fetched(self) -> int:
        """Bytes that came from the source for this flight so far."""
        return self._fetched_before + (self.pull.fetched if self.pull is not None else 0)

    def follow(self, pull: Pull, source: str) -> None:
        """Go on with ``pull``, and let every waiter know."""
        self._fetched_before = self.fetched
        self.pull, self.source = pull, source
        self.describe = lambda: f"still pulling {source}: {pull.progress()}"
        self.changed()

    def progress(self) -> Progress | None:
        """How far the bytes are; None before the first layer is asked for."""
        return self.pull.progress() if self.pull is not None else None


class Models:
    """Finds, resolves and pulls models; one flight for all who ask for the same thing with the same credentials."""

    def __init__(self, store: Store, config: Config, connector: Connector) -> None:
        self._store = store
        self._connector = connector
        self.counters = Counters()
        pull = config.pull
        self.access = Access(store.state, connector, pull.linger)
        self._puller = Puller(
            store,
            active_blobs=pull.active_blobs,
            connections_per_blob=pull.connections_per_blob,
            buffers=pull.buffers,
            decoders=pull.decoders,
            linger=_LAYER_LINGER,
            free_space_reserve=pull.free_space_reserve,
            counters=self.counters,
        )
        self._writing = Writing(self._puller)
        self._flights: Flights[ModelFlight] = Flights(ModelFlight, "model", pull.linger)
        self._documents: OrderedDict[Digest, ModelDocuments] = OrderedDict()
        self._documents_lock = threading.Lock()

    def find(self, manifest: Digest, selection: Selection) -> ReadyModel | None:
        """The model, if all that the selection wants of it is on this node; whether it may be handed out is not asked here."""
        known = self._load(manifest)
        if known is None:
            return None
        layers: list[Layer] = []
        missing: set[Digest] = set()
        for placement in known.layout.placements:
            layer = self._here(placement)
            if layer is None:
                if not isinstance(placement, FilePlacement):
                    return None
                layer = unpulled(placement)
                missing.add(layer.content)
            layers.append(layer)
        if missing & (needed(self._store.content, layers, selection) if missing else frozenset()):
            return None
        return ReadyModel(manifest, known.layout.format, tuple(layers))

    def size(self, manifest: Digest) -> int:
        """Bytes of all layers of a model as they are in the registry; 0 when its manifest is not here."""
        known = self._load(manifest)
        return known.size if known is not None else 0

    def resolved(self, request: VolumeRequest) -> Digest | None:
        """The manifest that the reference names as far as this node knows, unless the request wants the registry asked."""
        if request.pull_policy is PullPolicy.ALWAYS:
            return None
        resolution = self._store.state.resolution(str(request.reference))
        if resolution is not None:
            return resolution.manifest
        digest = request.reference.digest
        return digest if digest is not None and self._load(digest) is not None else None

    def fetch(self, request: VolumeRequest, credentials: Sequence[Credential], pinned: Digest | None = None) -> ModelFlight:
        """The flight that gets the model here; ``pinned`` is the manifest that the volume must have, whatever the tag says by now.

        Raises:
            NotFoundError: the pull policy is Never.
            UnavailableError: the process is stopping.
        """
        if request.pull_policy is PullPolicy.NEVER:
            msg = f"{request.reference} is not on this node and pullPolicy is Never; pull it first or use IfNotPresent"
            raise NotFoundError(msg)
        key = (str(request.reference), pinned, request.selection, tuple(credentials))
        return self._flights.join(key, lambda flight: self._fetch(flight, request, credentials, pinned))

    def tidy(self, now: float) -> None:
        """Remove what no model needs, unless a pull is running; one that is asked for meanwhile begins afterwards."""
        self._flights.between(lambda: collect(self._store.content, self._store.state, now=now))

    def waiting(self) -> int:
        """How many callers wait for a model now."""
        return sum(flight.waiters for flight in self._flights.under_way())

    def buffers_lent(self) -> int:
        """How many of the pulls' buffers are in use now."""
        return self._puller.buffers_lent()

    def stop(self, grace: float) -> None:
        """Wake all who wait and end all pulls; what is on disk is found again by the next start."""
        self.access.stop(grace)
        self._flights.stop(grace)
        self._puller.close(grace)
        self._connector.close()

    def _fetch(self, flight: ModelFlight, request: VolumeRequest, credentials: Sequence[Credential], pinned: Digest | None) -> ReadyModel:
        with self.counters.pull(), bound_contextvars(reference=str(request.reference)):
            return self._bring_model(flight, request, credentials, pinned)

    def _bring_model(
        self, flight: ModelFlight, request: VolumeRequest, credentials: Sequence[Credential], pinned: Digest | None
    ) -> ReadyModel:
        source = self._connector.connect(request.reference, credentials)
        try:
            flight.describe = lambda: f"{source.name} has not said yet what {request.reference} is"
            reference = request.reference if pinned is None else dataclasses.replace(request.reference, digest=pinned)
            asked = time.time() if pinned is None else None
            with flight.ending(source.close):
                known = documents.fetch(source, source.resolve(reference))
            flight.manifest = known.digest
            bind_contextvars(manifest=str(known.digest))
            flight.known = known
            layers = self._bring(flight, source, known, request.selection)
            step("pull.layers")
            self._record(source, known, layers)
            self._name(request, known.digest, asked)
            step("pull.recorded")
        finally:
            source.close()
        return ReadyModel(known.digest, known.layout.format, layers)

    def _bring(self, flight: ModelFlight, source: Source, known: ModelDocuments, selection: Selection) -> tuple[Layer, ...]:
        """Pull what the selection needs: all at once where it wants all, else the tars first, whose links may lead to raw layers."""
        placements = known.layout.placements
        first = placements if selection == Selection() else [place for place in placements if not isinstance(place, FilePlacement)]
        brought = self._pull(flight, source, first)
        layers = [brought.get(placement) or unpulled(placement) for placement in placements]  # type: ignore[arg-type]  # tars are brought
        shown = needed(self._store.content, layers, selection)
        rest = [layer.placement for layer in layers if layer.content in shown and layer.placement not in brought]
        brought |= self._pull(flight, source, rest)
        return tuple(brought.get(layer.placement, layer) for layer in layers)

    def _pull(self, flight: ModelFlight, source: Source, placements: Sequence[Placement]) -> dict[Placement, Layer]:
        if not placements:
            return {}
        wants = [_want(placement) for placement in placements]
        missing = sum(placement.layer.size for placement in placements if self._here(placement) is None)
        raw = all(isinstance(placement, FilePlacement) and placement.mode == 0o444 for placement in placements)
        with self._writing.pull(source, wants, missing=missing, all_whole_raw=raw) as pull:
            flight.follow(pull, source.name)
            while True:
                try:
                    results = pull.wait(1.0)
                except StillPullingError:
                    flight.check(f"the pull of {source.name}")
                else:
                    break
        for want in wants:
            self.access.prove(flight, source, want)
        return {
            placement: Layer(placement, result.content, result.size, result.entries)
            for placement, result in zip(placements, results, strict=True)
        }

    def _here(self, placement: Placement) -> Layer | None:
        record = self._store.state.layer(placement.layer.digest, _compression(placement).value)
        if record is None or not self._store.content.has(record.content):
            return None
        return Layer(placement, record.content, record.size)

    def _name(self, request: VolumeRequest, manifest: Digest, asked: float | None) -> None:
        """Remember what the reference named when it was ``asked`` for, not when the pull has ended; the tag may have moved meanwhile."""
        if asked is None:
            self._store.state.assume_resolution(str(request.reference), manifest)
        else:
            self._store.state.record_resolution(str(request.reference), manifest, asked)

    def _record(self, source: Source, known: ModelDocuments, layers: Sequence[Layer]) -> None:
        """Remember what was pulled: the documents first, so that a record never names what is not on the disk."""
        stored = tuple(self._store.content.add(body, algorithm=digest.algorithm) for digest, body in known.bodies)
        has = self._store.content.has
        contents = {
            (layer.placement.layer.digest, _compression(layer.placement).value): layer.content for layer in layers if has(layer.content)
        }
        state = self._store.state
        state.record_model(
            ModelRecord(
                manifest=known.digest,
                format=known.layout.format,
                size=known.size,
                authenticated=source.authenticated,
                layers=tuple(
                    ModelLayer(placement.layer.digest, compression, contents.get((placement.layer.digest, compression)))
                    for placement in known.layout.placements
                    for compression in (_compression(placement).value,)
                ),
                documents=stored,
            )
        )
        self._remember(known)

    def _load(self, manifest: Digest) -> ModelDocuments | None:
        with self._documents_lock:
            if manifest in self._documents:
                self._documents.move_to_end(manifest)
                return self._documents[manifest]
        known = documents.load(self._store.content, manifest)
        if known is not None:
            self._remember(known)
        return known

    def _remember(self, known: ModelDocuments) -> None:
        with self._documents_lock:
            self._documents[known.digest] = dataclasses.replace(known, bodies=())
            while len(self._documents) > _REMEMBERED:
                self._documents.popitem(last=False)


def credentials_for(reference: AnyReference, secrets: Mapping[str, str]) -> tuple[Credential, ...]:
    """Those of a volume's secret that may be sent for the reference, best first; an OCI layout needs none.

    Raises:
        InvalidRequestError: the secret is malformed; it is not quoted.
    """
    return Keyring.parse_secret(secrets).matching(reference) if isinstance(reference, Reference) else ()


def _compression(placement: Placement) -> Compression:
    return Compression.NONE if isinstance(placement, FilePlacement) else placement.compression


def _want(placement: Placement) -> LayerWant:
    if isinstance(placement, FilePlacement):
        return LayerWant(placement.layer, Compression.NONE, None, index=False)
    return LayerWant(placement.layer, placement.compression, placement.diff_id, index=True)
