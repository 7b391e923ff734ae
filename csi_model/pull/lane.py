"""Lanes: work on pieces in their order, beside the thread that makes them or within it.

With as many layers in flight as there are cores, a thread that does all the work of its layer costs the least; with fewer, a core
would idle, and a second thread nearly doubles the speed of one big layer. Which of the two holds changes while a layer is pulled, so
it is said for every piece.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

from csi_model.errors import BusyError
from csi_model.pull.threads import begin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from csi_model.pull.pool import Piece

_Item = TypeVar("_Item")


class Lane:
    """Does ``work`` with pieces in the order in which they come. Used by one thread, and finished or abandoned by it."""

    def __init__(self, name: str, work: Callable[[Piece], None]) -> None:
        self._name = name
        self._work = work
        self._queue: queue.SimpleQueue[Piece | None] = queue.SimpleQueue()  # bounded by the buffers that its pieces hold
        self._pending = 0
        self._idle = threading.Condition()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def put(self, piece: Piece, *, beside: bool) -> None:
        """Have a piece worked on: ``beside`` the caller and soon, or else now. The caller releases it as soon as it likes.

        Raises:
            CsiModelError: what the work on this or an earlier piece raised.
        """
        if not (beside and self._has_thread()):
            if self._thread is not None:
                self._drain()
            self._work(piece)
            return
        if self._error is not None:
            raise self._error
        piece.share()
        with self._idle:
            self._pending += 1
        self._queue.put(piece)

    def finish(self) -> None:
        """Wait until every piece was worked on; the lane is over.

        Raises:
            CsiModelError: what the work raised.
        """
        try:
            self._drain()
        finally:
            self.close()

    def close(self) -> None:
        """Let the thread end after the pieces that it has; for after a failure. Fine to call twice."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _has_thread(self) -> bool:
        if self._thread is None:
            with contextlib.suppress(BusyError):  # no more threads now: this one does the work, as it does for many layers
                self._thread = begin(self._name, self._run)
        return self._thread is not None

    def _drain(self) -> None:
        with self._idle:
            self._idle.wait_for(lambda: self._pending == 0)
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (piece := self._queue.get()) is not None:
            try:
                if self._error is None:
                    self._work(piece)
            except BaseException as error:  # noqa: BLE001 - raised again in the thread that puts
                self._error = error
            finally:
                piece.release()
                with self._idle:
                    self._pending -= 1
                    if not self._pending:
                        self._idle.notify_all()


class Ahead(Generic[_Item]):
    """Takes items out of an iterator in a thread of its own, up to ``depth`` ahead of who iterates over this."""

    def __init__(self, name: str, items: Iterator[_Item], *, depth: int, drop: Callable[[_Item], None]) -> None:
        self._items = items
        self._drop = drop
        self._queue: queue.Queue[tuple[_Item | None, BaseException | None]] = queue.Queue(depth)
        self._closed = False
        self._over = False
        self._thread = begin(name, self._run)

    def __iter__(self) -> Iterator[_Item]:
        while (item := self._get()) is not None:
            yield item

    def close(self) -> None:
        """Wait for the thread and drop what it took ahead. An iterator that may block has been told to stop before."""
        self._closed = True
        while not self._over:
            with contextlib.suppress(BaseException):  # the iteration was given up, for a reason that is raised elsewhere
                if (item := self._get()) is not None:
                    self._drop(item)
        self._thread.join()

    def _get(self) -> _Item | None:
        if self._over:
            return None
        item, error = self._queue.get()
        self._over = item is None
        if error is not None:
            raise error
        return item

    def _run(self) -> None:
        try:
            for item in self._items:
                self._queue.put((item, None))
                if self._closed:
                    break
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that iterates
            self._queue.put((None, error))
        else:
            self._queue.put((None, None))
