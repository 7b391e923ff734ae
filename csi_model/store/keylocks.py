"""Locks by key among the threads of this process."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from csi_model.errors import BusyError

if TYPE_CHECKING:
    from collections.abc import Iterator


class KeyLocks:
    """Mutual exclusion by key among threads; a key that nobody holds or waits for takes no memory."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: set[str] = set()

    @contextmanager
    def hold(self, key: str, *, patience: float | None) -> Iterator[None]:
        """Hold ``key`` for the body.

        Raises:
            BusyError: another thread kept it for ``patience`` seconds; None waits for as long as it takes.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: key not in self._held, timeout=patience):
                msg = f"another operation is at work on {key}; try again when it has ended"
                raise BusyError(msg)
            self._held.add(key)
        try:
            yield
        finally:
            with self._changed:
                self._held.remove(key)
                self._changed.notify_all()

    def held(self) -> frozenset[str]:
        """The keys held now."""
        with self._changed:
            return frozenset(self._held)
