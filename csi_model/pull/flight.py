"""Flights: one pull of one layer from one registry, and everybody who waits for it, each with a way of their own to the same bytes.

Who joins a flight brings another attempt along: their repository and their credentials. Attempts are made one after another until one brings
the layer, which is everybody's then; what one fails with is told to those alone whose attempt it was.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from csi_model.errors import CorruptContentError, StillPullingError
from csi_model.pull.progress import LayerProgress, Progress, Rate
from csi_model.pull.stop import Stop

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from csi_model.mount.strategy import WriteMode
    from csi_model.pull.job import LayerResult, LayerWant
    from csi_model.sources.protocol import Source


@dataclass(eq=False, slots=True)
class Attempt:
    """One way to a layer; ``error`` is what came of it, if it failed. ``keep`` bounds the memory that its index may take."""

    want: LayerWant
    source: Source
    mode: WriteMode
    keep: int
    error: BaseException | None = None


class Flight:
    """The pull of one layer; lands once, with a result or with the error of its last attempt. The puller that owns it guards counts and attempts.

    ``apart`` names the ingest of a flight that began while another registry's flight of the same blob was under way.
    """

    def __init__(self, key: Hashable, want: LayerWant, arrived: Callable[[int], None], *, apart: str | None = None) -> None:
        """``arrived`` is told the bytes that come from the source."""
        self.key = key
        self.want = want
        self.apart = apart
        self.attempts: list[Attempt] = []
        self._arrived = arrived
        self.stop = Stop()
        self.waiters = 0
        self.idle_since = time.monotonic()
        self.done = 0
        self.fetched = 0
        self.result: LayerResult | None = None
        self._lock = threading.Lock()
        self._watchers: list[tuple[Attempt, Callable[[], None]]] = []

    def attempt(self, want: LayerWant, source: Source, mode: WriteMode, keep: int) -> Attempt:
        """The attempt that reads from ``source``: one to be made or under way, else a new one."""
        for attempt in self.attempts:
            if attempt.source is source and attempt.error is None:
                return attempt
        self.attempts.append(Attempt(want, source, mode, keep))
        return self.attempts[-1]

    def next(self) -> Attempt | None:
        """The attempt to make next, when there is one."""
        return next((attempt for attempt in self.attempts if attempt.error is None), None)

    def begin(self, done: int) -> None:
        """(Re)start with ``done`` bytes of the blob behind it."""
        self.done = done

    def add(self, count: int) -> None:
        """``count`` more bytes arrived."""
        self.done += count  # only the thread that fetches writes it
        self.fetched += count
        self._arrived(count)

    def reuse(self, count: int) -> None:
        """``count`` more bytes, which an earlier attempt left on the disk."""
        self.done += count

    def land(self, result: LayerResult) -> None:
        """Deliver to everybody who watches."""
        with self._lock:
            self.result = result
            watchers, self._watchers = self._watchers, []
        for _, tell in watchers:
            tell()

    def fail(self, attempt: Attempt, error: BaseException) -> None:
        """Deliver to those alone whose attempt it was."""
        with self._lock:
            attempt.error = error
            told = [tell for whose, tell in self._watchers if whose is attempt]
            self._watchers = [watcher for watcher in self._watchers if watcher[0] is not attempt]
        for tell in told:
            tell()

    def watch(self, attempt: Attempt, tell: Callable[[], None]) -> None:
        """Call ``tell`` once when it has landed or that attempt has failed; at once when it has already."""
        with self._lock:
            if self.result is None and attempt.error is None:
                self._watchers.append((attempt, tell))
                return
        tell()


class Pull:
    """One request's layers, some here already and some in flight. A context manager: leaving it leaves its flights."""

    def __init__(
        self,
        wants: Sequence[LayerWant],
        layers: Sequence[LayerResult | Flight],
        attempts: Mapping[Flight, Attempt],
        leave: Callable[[Sequence[Flight]], None],
    ) -> None:
        """``attempts`` has, for each flight among ``layers``, the attempt that is this request's own."""
        self._wants = tuple(wants)
        self._layers = tuple(layers)
        self._flights = tuple(attempts)
        self._leave = leave
        self._left = False
        self._changed = threading.Condition()
        self._missing = len(self._flights)
        self._failed: BaseException | None = None
        self._fetched_before = sum(flight.fetched for flight in self._flights)
        self._rate = Rate()
        self._rate.at(self._done())
        for flight, attempt in attempts.items():
            flight.watch(attempt, lambda attempt=attempt: self._landed(attempt))  # type: ignore[misc]

    def wait(self, timeout: float | None = None) -> tuple[LayerResult, ...]:
        """The layers in the order in which they were wanted, once all are here and durable.

        Raises:
            StillPullingError: ``timeout`` seconds went by; says how far the pull is, which goes on.
            CorruptContentError: a layer is not what its manifest or config says.
            CsiModelError: whatever the first layer to fail failed with, from this request's own source; the others go on.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: not self._missing or self._failed is not None, timeout):
                msg = f"still pulling: {self.progress()}"
                raise StillPullingError(msg)
            if self._failed is not None:
                raise self._failed
        return tuple(self._checked(want, layer) for want, layer in zip(self._wants, self._layers, strict=True))

    @property
    def fetched(self) -> int:
        """Bytes that have come from the source since this pull began; those before it, of a flight that it joined, do not count."""
        return sum(flight.fetched for flight in self._flights) - self._fetched_before

    def progress(self) -> Progress:
        """How far it is now; the rate is that of the time since it was last asked for, up to ten seconds back."""
        layers = tuple(
            LayerProgress(want.descriptor.digest, want.descriptor.size, _done(want, layer), _fetched(layer))
            for want, layer in zip(self._wants, self._layers, strict=True)
        )
        done = self._done()
        total = sum(layer.total for layer in layers)
        with self._changed:  # everybody who waits for the pull may ask
            rate = self._rate.at(done)
        return Progress(total=total, done=sum(layer.done for layer in layers), rate=rate, layers=layers)

    def leave(self) -> None:
        """Wait no longer. Layers that nobody waits for go on for a while (``linger``) and stop then; twice is fine."""
        with self._changed:
            if self._left:
                return
            self._left = True
        self._leave(self._flights)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.leave()

    def _done(self) -> int:
        return sum(flight.done for flight in self._flights)

    def _landed(self, attempt: Attempt) -> None:
        with self._changed:
            self._missing -= 1
            self._failed = self._failed or attempt.error
            self._changed.notify_all()

    @staticmethod
    def _checked(want: LayerWant, layer: LayerResult | Flight) -> LayerResult:
        result = layer.result if isinstance(layer, Flight) else layer
        assert result is not None
        if want.diff_id is not None and want.diff_id.algorithm == "sha256" and result.content != want.diff_id:
            msg = (
                f"layer {want.descriptor.digest} decodes to {result.content} but the image's config says {want.diff_id}; "
                "the image must be built and pushed again"
            )
            raise CorruptContentError(msg)
        return result


def _done(want: LayerWant, layer: LayerResult | Flight) -> int:
    return layer.done if isinstance(layer, Flight) else want.descriptor.size


def _fetched(layer: LayerResult | Flight) -> int:
    return layer.fetched if isinstance(layer, Flight) else 0
