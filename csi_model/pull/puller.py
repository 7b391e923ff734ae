"""The puller: everything that a model needs, into the store, once per node whoever asks.

Pulls belong to the process, not to the call that asked: a wait may end, the pull goes on. Layers are the unit: two models of one registry
that share one share its flight. It knows neither manifests' formats nor views.

A flight is one registry's, or one layout's: anybody can write a manifest that names a popular layer, and run the registry that keeps silent
about it or delivers it slowly. Where two registries are asked for one blob at a time, each flight has its own ingest, waits for nobody, and the
second to commit finds the content there. Whoever joins a flight of the same registry with another repository or other credentials goes on
with their own when those of others fail, and never hears of what they failed with.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Protocol

import structlog
from structlog.contextvars import bind_contextvars

from csi_model.errors import BusyError, CsiModelError, NoSpaceError, StoppedError
from csi_model.linux.disk import free_bytes
from csi_model.pull.counters import Counters
from csi_model.pull.fetch import host_of
from csi_model.pull.flight import Attempt, Flight, Pull
from csi_model.pull.guards import UNKNOWN, ingest_name
from csi_model.pull.job import Job, LayerResult, LayerWant, Resources
from csi_model.pull.pool import BufferPool, Permits
from csi_model.pull.progress import amount

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from csi_model.mount.strategy import WriteMode
    from csi_model.oci.digest import Digest
    from csi_model.pull.schedule import Slot, Work
    from csi_model.sources.protocol import Source
    from csi_model.store.content import ContentStore
    from csi_model.store.records import LayerRecord

from csi_model.pull.schedule import Schedule
from csi_model.store.faults import disk_errors

__all__ = ["LayerResult", "LayerWant", "Pull", "Puller"]

log = structlog.get_logger(__name__)

_KEPT = 64 << 20
"""Bytes of memory that the indexes of all layers of a pull may take; whoever wants a larger one reads the layer's headers again."""


class LayerBook(Protocol):
    """Where it is remembered what a blob became."""

    def layer(self, blob: Digest, compression: str) -> LayerRecord | None:
        """What it became, if it was ever pulled."""

    def record_layer(self, blob: Digest, compression: str, content: Digest, size: int, pieces: bytes, *, guard: str | None = None) -> None:
        """Remember it durably, and which repository delivered it, if to credentials only."""

    def vouch(self, blob: Digest, compression: str, guard: str | None) -> None:
        """Remember that another repository delivered it, too."""


class PullStore(Protocol):
    """The two parts of a store that a puller works with."""

    @property
    def content(self) -> ContentStore:
        """Verified bytes, and unfinished ones."""

    @property
    def state(self) -> LayerBook:
        """What files cannot say."""


class Puller:
    """Pulls layers into one store. Settings are those of the configuration's ``pull`` section; sizes in bytes, times in seconds."""

    def __init__(
        self,
        store: PullStore,
        *,
        active_blobs: int = 4,
        connections_per_blob: int = 2,
        buffers: int = 16,
        decoders: int = 8,
        linger: float = 600.0,
        free_space_reserve: int = 1 << 30,
        counters: Counters | None = None,
    ) -> None:
        self._counters = counters or Counters()
        self._content = store.content
        self._state = store.state
        self._linger = linger
        self._reserve = free_space_reserve
        self._schedule = Schedule(active_blobs)
        self._lock = threading.Lock()
        self._flights: dict[Hashable, Flight] = {}
        self._timer: threading.Timer | None = None
        self._closed = False
        cores = len(os.sched_getaffinity(0))
        self._resources = Resources(
            pool=BufferPool(buffers),
            decoders=Permits(decoders),
            connections=connections_per_blob,
            reserve=free_space_reserve,
            crowded=lambda: self._schedule.running() >= cores,
        )

    def pull(self, source: Source, wants: Sequence[LayerWant], *, write_mode: WriteMode) -> Pull:
        """Begin to pull what is missing of ``wants``, or join those who do; never blocks on the network.

        The caller waits on the result and leaves it. ``source`` must stay usable until the flights that began here have landed.

        Raises:
            NoSpaceError: what is missing does not fit beside the reserve; nothing was begun.
            BusyError: there may be no more threads now; layers that had one already go on.
            UnavailableError: the process is stopping.
        """
        keys = {want: _key(want, source) for want in wants}
        keep = _KEPT // max(1, sum(want.index for want in keys))
        present = {want: found for want in keys if (found := self._present(want)) is not None}
        new: list[Flight] = []
        layers: list[LayerResult | Flight] = []
        attempts: dict[Flight, Attempt] = {}
        with self._lock:
            if self._closed:
                msg = "the driver is stopping; ask again after its restart"
                raise StoppedError(msg)
            # A flight may have landed since.
            present |= {
                want: found for want in keys if self._is_missing(want, keys, present) and (found := self._present(want)) is not None
            }
            self._check_space(source, [want for want in keys if self._is_missing(want, keys, present)])
            for want in wants:
                if want in present:
                    layers.append(present[want])
                    continue
                flight = self._flights.get(keys[want])
                if flight is None:
                    flight = self._flights[keys[want]] = self._flight(keys[want], want, source)
                    new.append(flight)
                if flight not in attempts:
                    attempts[flight] = flight.attempt(want, source, write_mode, keep)
                    flight.waiters += 1
                layers.append(flight)
            try:
                self._launch(source, new)
            except BusyError:
                self._give_up(attempts)
                raise
        return Pull(wants, layers, attempts, self._leave)

    def _launch(self, source: Source, new: Sequence[Flight]) -> None:
        for position, flight in enumerate(new):
            try:
                self._schedule.submit(host_of(source), position, _as_here(partial(self._fly, flight)))
            except BusyError:
                for unborn in new[position:]:
                    self._forget(unborn)
                raise

    def buffers_lent(self) -> int:
        """How many buffers of the pool hold bytes now."""
        return self._resources.pool.lent()

    def close(self, grace: float = 10.0) -> bool:
        """Stop every pull, keeping what resumes; whether all threads ended within ``grace`` seconds. Waiters get UnavailableError."""
        with self._lock:
            self._closed = True
            flights = list(self._flights.values())
            if self._timer is not None:
                self._timer.cancel()
        for flight in flights:
            flight.stop.set()
        return self._schedule.join(grace)

    def _present(self, want: LayerWant) -> LayerResult | None:
        record = self._state.layer(want.descriptor.digest, want.compression.value)
        if record is None or not self._content.has(record.content):
            return None
        return LayerResult(record.content, record.size, record.pieces)

    def _is_missing(self, want: LayerWant, keys: Mapping[LayerWant, Hashable], present: Mapping[LayerWant, LayerResult]) -> bool:
        return want not in present and keys[want] not in self._flights

    def _flight(self, key: Hashable, want: LayerWant, source: Source) -> Flight:
        arrived = partial(self._counters.arrived, host_of(source))
        beside = any(flight.want.descriptor.digest == want.descriptor.digest for flight in self._flights.values())
        return Flight(key, want, arrived, apart=str(key) if beside else None)

    def _fly(self, flight: Flight, slot: Slot) -> None:
        """Make a flight's attempts in this thread until one brings the layer, and land it."""
        bind_contextvars(blob=str(flight.want.descriptor.digest))
        while True:
            with self._lock:
                attempt = flight.next()
                if attempt is None:
                    self._forget(flight)
                    return
            result, error = self._try(flight, attempt, slot)
            if result is not None:
                with self._lock:
                    self._forget(flight)
                flight.land(result)
                return
            assert error is not None
            with self._lock:
                attempt.error = error
                if flight.next() is None:
                    self._forget(flight)  # before it is told: who asks again begins anew
            flight.fail(attempt, error)

    def _try(self, flight: Flight, attempt: Attempt, slot: Slot) -> tuple[LayerResult | None, BaseException | None]:
        started = time.monotonic()
        want, source = attempt.want, attempt.source
        blob = want.descriptor
        try:
            flight.stop.check()
            if (found := self._present(want)) is not None:  # brought here by another registry's flight
                return found, None
            job = Job(
                want,
                source,
                self._content,
                mode=attempt.mode,
                resources=self._resources,
                stop=flight.stop,
                meter=flight,
                apart=flight.apart,
                keep=attempt.keep,
            )
            result = job.run(slot.leave, partial(self._record, want))
        except CsiModelError as failure:
            log.warning("layer not pulled", blob=str(blob.digest), source=source.name, error=str(failure))
            return None, failure
        except BaseException as failure:  # noqa: BLE001 - a bug of ours is delivered to the waiters, whose edge logs it
            return None, failure
        log.info("layer pulled", blob=str(blob.digest), size=blob.size, seconds=round(time.monotonic() - started, 3))
        return result, None

    def _forget(self, flight: Flight) -> None:
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]

    def _record(self, want: LayerWant, result: LayerResult, guard: str | None) -> None:
        blob, compression = want.descriptor.digest, want.compression.value
        if (found := self._present(want)) is not None and found.content == result.content and guard != UNKNOWN:
            self._state.vouch(blob, compression, guard)  # another registry's flight was first, and keeps its right
            return
        self._state.record_layer(blob, compression, result.content, result.size, result.pieces, guard=guard)

    def _leave(self, flights: Iterable[Flight]) -> None:
        with self._lock:
            self._give_up(flights)

    def _give_up(self, flights: Iterable[Flight]) -> None:
        for flight in flights:
            flight.waiters -= 1
            flight.idle_since = time.monotonic()
        self._arm()

    def _arm(self) -> None:
        """Have ``_sweep`` called when the first flight has been idle for long enough."""
        idle = [flight.idle_since for flight in self._flights.values() if not flight.waiters]
        if not idle or self._timer is not None or self._closed:
            return
        timer = threading.Timer(max(0.0, min(idle) + self._linger - time.monotonic()), self._sweep)
        timer.daemon = True
        with contextlib.suppress(RuntimeError):  # no more threads now; whoever leaves next tries again
            timer.start()
            self._timer = timer

    def _sweep(self) -> None:
        with self._lock:
            self._timer = None
            now = time.monotonic()
            given_up = [flight for flight in self._flights.values() if not flight.waiters and now - flight.idle_since >= self._linger]
            for flight in given_up:
                del self._flights[flight.key]  # who asks now starts anew, once the ingest is free
            self._arm()
        for flight in given_up:
            log.info("stopping a pull that nobody waits for", blob=str(flight.want.descriptor.digest), done=flight.done)
            flight.stop.set()

    def _check_space(self, source: Source, missing: Sequence[LayerWant]) -> None:
        wanted = {_key(want, source): want for want in missing}
        needed = sum(want.descriptor.size for want in wanted.values())
        if not needed:
            return
        promised = sum(flight.want.descriptor.size - flight.done for flight in self._flights.values())
        place = self._content.path(missing[0].descriptor.digest).parent
        with disk_errors(f"cannot look at the filesystem of {place}"):
            free = free_bytes(place) - promised - self._reserve
        if needed > free:
            needed -= sum(self._resumable(source, want) for want in wanted.values())
        if needed > free:
            msg = (
                f"{source.name} needs {amount(needed)} more but only {amount(max(0, free))} are free beside the reserve of {amount(self._reserve)}; "
                "free space with `csi-model rm`, or give the state directory a larger disk"
            )
            raise NoSpaceError(msg)

    def _resumable(self, source: Source, want: LayerWant) -> int:
        """Bytes that an earlier attempt left on the disk, which the pull will go on from or replace."""
        try:
            with self._content.ingest(want.descriptor.digest, ingest_name(source, want.compression), patience=0) as ingest:
                return min(ingest.length(), want.descriptor.size)
        except BusyError:
            return 0


def _as_here(work: Work) -> Work:
    """The work in a copy of this thread's context: a layer's log lines name the model that wanted it first."""
    context = copy_context()
    return lambda slot: context.run(work, slot)


def _key(want: LayerWant, source: Source) -> Hashable:
    """What makes two wants one flight: the blob, its decoding, a diff id that only the job can check, and the registry or layout.

    The size is part of it, for what a manifest says of its blobs may be untrue.
    """
    other = want.diff_id if want.diff_id is not None and want.diff_id.algorithm != "sha256" else None
    place = source.name if "://" in source.name else host_of(source)
    return (place, str(want.descriptor.digest), want.descriptor.size, want.compression.value, other and str(other))
