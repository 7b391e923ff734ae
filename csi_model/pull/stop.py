"""Stopping: how work that blocks in sockets, queues and pools is told to end."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from csi_model.errors import StoppedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Stop:
    """A flag that is set once, and whatever must be called to wake those who would not see it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._set = False
        self._wakers: dict[object, Callable[[], None]] = {}

    @property
    def is_set(self) -> bool:
        """Whether ``set`` was called."""
        return self._set

    def set(self) -> None:
        """Set the flag and call every waker once; a second call does nothing."""
        with self._lock:
            if self._set:
                return
            self._set = True
            wakers = list(self._wakers.values())
        for wake in wakers:
            wake()

    def check(self) -> None:
        """Raise when the flag is set.

        Raises:
            UnavailableError: it is.
        """
        if self._set:
            msg = "the pull was stopped; asking again goes on with what is on disk"
            raise StoppedError(msg)

    @contextmanager
    def child(self) -> Iterator[Stop]:
        """A stop of the body's own, set when this one is, and in any case at the body's end."""
        inner = Stop()
        try:
            with self.waking(inner.set):
                yield inner
        finally:
            inner.set()

    @contextmanager
    def waking(self, wake: Callable[[], None]) -> Iterator[None]:
        """Have ``set`` call ``wake``, from its own thread, while the body runs; at once when the flag is set already."""
        key = object()
        with self._lock:
            already = self._set
            self._wakers[key] = wake
        try:
            if already:
                wake()
            yield
        finally:
            with self._lock:
                del self._wakers[key]
