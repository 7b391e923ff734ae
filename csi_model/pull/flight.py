"""Flights: one pull of one layer in the process, and everybody who waits for it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from csi_model.errors import CorruptContentError, StillPullingError
from csi_model.pull.progress import LayerProgress, Progress, Rate
from csi_model.pull.stop import Stop

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence
    from types import TracebackType
    from typing import Self

    from csi_model.pull.job import LayerResult, LayerWant


class Flight:
    """The pull of one layer; lands once, with a result or an error. Its counts are guarded by the puller that owns it."""

    def __init__(self, key: Hashable, want: LayerWant, arrived: Callable[[int], None]) -> None:
        """``arrived`` is told the bytes that come from the source."""
        self.key = key
        self.want = want
        self._arrived = arrived
        self.stop = Stop()
        self.waiters = 0
        self.idle_since = time.monotonic()
        self.done = 0
        self.fetched = 0
        self.result: LayerResult | None = None
        self.error: BaseException | None = None
        self._lock = threading.Lock()
        self._landed = False
        self._watchers: list[Callable[[], None]] = []

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

    def land(self, result: LayerResult | None, error: BaseException | None) -> None:
        """Deliver to everybody who watches."""
        with self._lock:
            self.result, self.error, self._landed = result, error, True
            watchers, self._watchers = self._watchers, []
        for tell in watchers:
            tell()

    def watch(self, tell: Callable[[], None]) -> None:
        """Call ``tell`` once when it has landed; at once when it has already."""
        with self._lock:
            if not self._landed:
                self._watchers.append(tell)
                return
        tell()


class Pull:
    """One request's layers, some here already and some in flight. A context manager: leaving it leaves its flights."""

    def __init__(
        self, wants: Sequence[LayerWant], layers: Sequence[LayerResult | Flight], leave: Callable[[Sequence[Flight]], None]
    ) -> None:
        self._wants = tuple(wants)
        self._layers = tuple(layers)
        self._flights = tuple({id(layer): layer for layer in layers if isinstance(layer, Flight)}.values())
        self._leave = leave
        self._left = False
        self._changed = threading.Condition()
        self._missing = len(self._flights)
        self._failed: BaseException | None = None
        self._fetched_before = sum(flight.fetched for flight in self._flights)
        self._rate = Rate()
        self._rate.at(self._done())
        for flight in self._flights:
            flight.watch(lambda flight=flight: self._landed(flight))  # type: ignore[misc]

    def wait(self, timeout: float | None = None) -> tuple[LayerResult, ...]:
        """The layers in the order in which they were wanted, once all are here and durable.

        Raises:
            StillPullingError: ``timeout`` seconds went by; says how far the pull is, which goes on.
            CorruptContentError: a layer is not what its manifest or config says.
            CsiModelError: whatever the first layer to fail failed with; the others go on.
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

    def _landed(self, flight: Flight) -> None:
        with self._changed:
            self._missing -= 1
            self._failed = self._failed or flight.error
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
