"""Single-flight work that outlives the call that asked for it.

A deadline ends a wait, never the work: it belongs to the process. Work that nobody waits for any more goes on for ``linger`` seconds,
so that a retry finds it, and is then asked to stop.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

from csi_model.errors import StillPullingError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

_Result = TypeVar("_Result")


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
        self._stopping = False
        self.describe: Callable[[], str] = lambda: "resolving the reference"
        """Says, for a waiter who must leave, how far the work is; the work itself replaces it as it goes."""

    @property
    def cancelled(self) -> bool:
        """Whether the work should end: nobody has waited for ``linger`` seconds, or the process is stopping."""
        with self._changed:
            if self._stopping:
                return True
            return self._waiters == 0 and time.monotonic() - self._abandoned_at > self._linger

    @property
    def finished(self) -> bool:
        """Whether there is a result or an error."""
        with self._changed:
            return self._done

    def wait(self, deadline: float | None) -> _Result:
        """The result, once it is there.

        Raises:
            StillPullingError: ``deadline`` (of ``time.monotonic()``) came first; says how far the work is.
            UnavailableError: the process is stopping.
            CsiModelError: whatever the work failed with.
        """
        with self._changed:
            self._waiters += 1
            try:
                while not (self._done or self._stopping):
                    left = None if deadline is None else deadline - time.monotonic()
                    if left is not None and left <= 0:
                        raise StillPullingError(self.describe())
                    self._changed.wait(left)
            finally:
                self._waiters -= 1
                self._abandoned_at = time.monotonic()
            if self._error is not None:
                raise self._error
            if not self._done:
                msg = "the driver is stopping; the next start goes on with what is on disk"
                raise UnavailableError(msg)
            return self._result  # type: ignore[return-value]  # None is a result where the work returns None

    def stop(self) -> None:
        """Wake the waiters with UnavailableError and ask the work to end."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def run(self, work: Callable[[Flight[_Result]], _Result]) -> None:
        """Do the work and keep its result or its error."""
        try:
            result = work(self)
        except BaseException as error:  # noqa: BLE001 - it is delivered to every waiter
            with self._changed:
                self._error, self._done = error, True
                self._changed.notify_all()
        else:
            with self._changed:
                self._result, self._done = result, True
                self._changed.notify_all()


class Flights(Generic[_Result]):
    """The flights under way, by key."""

    def __init__(self, name: str, linger: float) -> None:
        self._name = name
        self._linger = linger
        self._lock = threading.Lock()
        self._flights: dict[Hashable, tuple[Flight[_Result], threading.Thread]] = {}
        self._stopped = False

    def join(self, key: Hashable, work: Callable[[Flight[_Result]], _Result]) -> Flight[_Result]:
        """The flight that does ``work`` for ``key``: the one under way, or a new one.

        Raises:
            UnavailableError: ``stop`` was called.
        """
        with self._lock:
            if self._stopped:
                msg = "the driver is stopping"
                raise UnavailableError(msg)
            if key in self._flights:
                return self._flights[key][0]
            flight: Flight[_Result] = Flight(self._linger)
            thread = threading.Thread(target=self._fly, args=(key, flight, work), name=self._name, daemon=True)
            self._flights[key] = (flight, thread)
            thread.start()
            return flight

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

    def _fly(self, key: Hashable, flight: Flight[_Result], work: Callable[[Flight[_Result]], _Result]) -> None:
        try:
            flight.run(work)
        finally:
            with self._lock:
                del self._flights[key]


class KeyedLocks:
    """Locks by key, held only within a ``with``; an entry vanishes with its last user."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[Hashable, tuple[threading.Lock, int]] = {}

    @contextmanager
    def hold(self, key: Hashable, *, timeout: float = -1) -> Iterator[bool]:
        """Wait for the lock of ``key``, ``timeout`` seconds at most (-1: for ever); yields whether it was got."""
        with self._guard:
            lock, users = self._locks.get(key, (threading.Lock(), 0))
            self._locks[key] = (lock, users + 1)
        got = lock.acquire(timeout=timeout)
        try:
            yield got
        finally:
            if got:
                lock.release()
            with self._guard:
                lock, users = self._locks[key]
                if users == 1:
                    del self._locks[key]
                else:
                    self._locks[key] = (lock, users - 1)
