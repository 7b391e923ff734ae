"""Single-flight work that outlives the call that asked for it.

A deadline ends a wait, never the work: it belongs to the process. Work that nobody waits for any more goes on for ``linger`` seconds,
so that a retry finds it, and is then asked to stop.
"""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from csi_model.errors import BusyError, StillPullingError, StoppedError
from csi_model.pull.stop import Stop
from csi_model.pull.threads import begin

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from contextlib import AbstractContextManager

_Result = TypeVar("_Result")
_Kind = TypeVar("_Kind", bound="Flight[Any]")

_LOOK_EVERY = 5.0
"""Seconds between two looks of a waiter who wants to know how far the work is."""


class Waiter:
    """Whoever waits for a flight; ``cancel`` ends the wait at once, from any thread, also before it began."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = False
        self._wake: Callable[[], None] | None = None

    @property
    def cancelled(self) -> bool:
        """Whether ``cancel`` was called."""
        return self._cancelled

    def cancel(self) -> None:
        """End the wait with BusyError."""
        with self._lock:
            self._cancelled = True
            wake = self._wake
        if wake is not None:
            wake()

    def woken_by(self, wake: Callable[[], None] | None) -> None:
        """What ``cancel`` calls to wake the wait; None when it is over."""
        with self._lock:
            self._wake = wake


class Flight(Generic[_Result]):
    """One piece of work in a thread of its own; any number of callers wait for its one result."""

    def __init__(self, linger: float) -> None:
        self._linger = linger
        self._changed = threading.Condition()
        self._done = False
        self._result: _Result | None = None
        self._error: BaseException | None = None
        self._waiters = 0
        self._abandoned_at = time.monotonic()
        self._stop = Stop()
        self.describe: Callable[[], str] = lambda: "resolving the reference"
        """Says, for a waiter who must leave, how far the work is; the work itself replaces it as it goes."""

    @property
    def cancelled(self) -> bool:
        """Whether the work should end: nobody has waited for ``linger`` seconds, or the process is stopping."""
        with self._changed:
            if self._stop.is_set:
                return True
            return self._waiters == 0 and time.monotonic() - self._abandoned_at > self._linger

    def check(self, what: str) -> None:
        """Raise when the work, called ``what`` in the message, should end.

        Raises:
            UnavailableError: it should.
        """
        if self.cancelled:
            msg = f"{what} was stopped; what is on disk is resumed by the next request"
            raise StoppedError(msg)

    def ending(self, end: Callable[[], None]) -> AbstractContextManager[None]:
        """Have ``stop`` call ``end``, which wakes the work where it blocks, while the body runs; at once when it was called already."""
        return self._stop.waking(end)

    @property
    def waiters(self) -> int:
        """How many wait now."""
        return self._waiters

    @property
    def finished(self) -> bool:
        """Whether there is a result or an error."""
        with self._changed:
            return self._done

    def wait(self, deadline: float | None = None, waiter: Waiter | None = None, look: Callable[[], None] | None = None) -> _Result:
        """The result, once it is there; meanwhile ``look`` is called every few seconds, and whenever the work has ``changed``.

        Raises:
            StillPullingError: ``deadline`` (of ``time.monotonic()``) came first; says how far the work is.
            BusyError: ``waiter`` was cancelled.
            UnavailableError: the process is stopping.
            CsiModelError: whatever the work failed with.
        """
        waiter = waiter or Waiter()
        waiter.woken_by(self.changed)
        with self._changed:
            self._waiters += 1
            try:
                while not (self._done or self._stop.is_set):
                    if waiter.cancelled:
                        msg = "the volume was unpublished while it waited for its model"
                        raise BusyError(msg)
                    left = None if deadline is None else deadline - time.monotonic()
                    if left is not None and left <= 0:
                        raise StillPullingError(self.describe())
                    if look is None:
                        self._changed.wait(left)
                    else:
                        look()
                        self._changed.wait(_LOOK_EVERY if left is None else min(_LOOK_EVERY, left))
            finally:
                self._waiters -= 1
                self._abandoned_at = time.monotonic()
                waiter.woken_by(None)
            if self._error is not None:
                raise self._error
            if not self._done:
                msg = "the driver is stopping; the next start goes on with what is on disk"
                raise StoppedError(msg)
            return cast("_Result", self._result)

    def stop(self) -> None:
        """Wake the waiters with UnavailableError, and the work, which is asked to end."""
        self._stop.set()
        self.changed()

    def changed(self) -> None:
        """Have every waiter look at how far the work is."""
        with self._changed:
            self._changed.notify_all()

    def run(self, work: Callable[[], _Result]) -> None:
        """Do the work and keep its result or its error."""
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - it is delivered to every waiter
            with self._changed:
                self._error, self._done = error, True
                self._changed.notify_all()
        else:
            with self._changed:
                self._result, self._done = result, True
                self._changed.notify_all()


class Flights(Generic[_Kind]):
    """The flights under way, by key."""

    def __init__(self, kind: Callable[[float], _Kind], name: str, linger: float) -> None:
        self._kind = kind
        self._name = name
        self._linger = linger
        self._lock = threading.Lock()
        self._flights: dict[Hashable, tuple[_Kind, threading.Thread]] = {}
        self._stopped = False

    def join(self, key: Hashable, work: Callable[[_Kind], object]) -> _Kind:
        """The flight that does ``work`` for ``key``: the one under way, or a new one, whose log lines name whoever began it.

        Raises:
            BusyError: there may be no more threads now.
            UnavailableError: ``stop`` was called.
        """
        with self._lock:
            if self._stopped:
                msg = "the driver is stopping"
                raise StoppedError(msg)
            if key in self._flights:
                return self._flights[key][0]
            flight = self._kind(self._linger)
            self._flights[key] = (flight, begin(self._name, partial(self._fly, key, flight, work)))
            return flight

    def under_way(self) -> tuple[_Kind, ...]:
        """The flights of this moment."""
        with self._lock:
            return tuple(flight for flight, _ in self._flights.values())

    def between(self, work: Callable[[], None]) -> None:
        """Do ``work`` here if there is no flight, while none can begin; else do nothing."""
        with self._lock:
            if not self._flights:
                work()

    def stop(self, grace: float) -> None:
        """Wake every waiter, ask all work to end and wait ``grace`` seconds in all for it."""
        with self._lock:
            self._stopped = True
            flights = list(self._flights.values())
        deadline = time.monotonic() + grace
        for flight, _ in flights:
            flight.stop()
        for _, thread in flights:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _fly(self, key: Hashable, flight: _Kind, work: Callable[[_Kind], object]) -> None:
        try:
            flight.run(lambda: work(flight))
        finally:
            with self._lock:
                del self._flights[key]
