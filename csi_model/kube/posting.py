"""The thread that writes events. Whoever has something to say puts it in line and goes on; nobody waits for the API server."""

from __future__ import annotations

import threading
import time
import traceback
from typing import TYPE_CHECKING

import structlog

from csi_model.errors import ConflictError, CsiModelError, DeniedError, InvalidRequestError, NotFoundError
from csi_model.kube.backoff import Backoff
from csi_model.kube.bucket import Bucket
from csi_model.kube.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable

    from csi_model.kube.api import Cluster
    from csi_model.kube.ledger import Post
    from csi_model.kube.notes import Note

log = structlog.get_logger(__name__)

_BURST = 100
_A_SECOND = 20
"""Events that one node writes at once, and per second after that."""
_COMPLAIN_EVERY = 60.0
_CROWD = "too many at once"


class Poster:
    """Writes notes as events, one after another, for as long as it is open; what the API server will not take is dropped and counted."""

    def __init__(self, cluster: Cluster, *, backoff: Backoff | None = None) -> None:
        self._cluster = cluster
        self._backoff = backoff or Backoff(first=1.0, longest=30.0)
        self._ledger = Ledger()
        self._pace = Bucket(burst=_BURST, every=1 / _A_SECOND)
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._abandoned = False
        self._complained_at = -_COMPLAIN_EVERY
        self._reason = _CROWD
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def add(self, note: Note) -> None:
        """Have a note written soon; returns at once."""
        with self._changed:
            self._ledger.add(note, time.time())
            self._changed.notify()

    def close(self, grace: float) -> None:
        """Write what waits, for ``grace`` seconds at most and without trying anything twice, and stop."""
        self._closing.set()
        with self._changed:
            self._changed.notify()
        self._thread.join(grace)
        self._abandoned = True

    def _run(self) -> None:
        while not self._abandoned and (post := self._next()) is not None:
            try:
                self._write(post)
            except Exception as error:  # noqa: BLE001 - a bug of ours costs this event, not those after it
                frames = "".join(traceback.format_exception(error))
                log.error("event not written", reason=post.note.reason, traceback=frames)  # noqa: TRY400 - no values of variables
            self._complain()

    def _next(self) -> Post | None:
        """The next event to write, once there is one; None at the end."""
        while not self._pace.take(time.monotonic()):
            self._closing.wait(1 / _A_SECOND)
        with self._changed:
            while not self._ledger:
                if self._closing.is_set():
                    return None
                self._changed.wait()
            return self._ledger.next()

    def _write(self, post: Post) -> None:
        """Write one event; after a failure that may pass, wait."""
        try:
            self._cluster.write(post)
        except (DeniedError, InvalidRequestError) as error:
            self._settle(self._ledger.refused, post, error)
        except NotFoundError as error:
            # An update of what the API server has forgotten is made anew; for a new event its namespace has gone.
            self._settle(self._ledger.lost if post.exists else self._ledger.refused, post, error)
        except ConflictError:
            # An earlier try reached the API server though its answer did not reach us.
            self._settle(self._ledger.written, post)
        except CsiModelError as error:
            self._settle(self._ledger.refused if self._closing.is_set() else self._ledger.failed, post, error)
            self._closing.wait(self._backoff.next())
        else:
            self._backoff.reset()
            self._settle(self._ledger.written, post)

    def _settle(self, how: Callable[[Post], None], post: Post, error: CsiModelError | None = None) -> None:
        with self._changed:
            how(post)
        if error is not None:
            self._reason = str(error)
            log.debug("event not written", event_reason=post.note.reason, error=self._reason)

    def _complain(self) -> None:
        """Say how many events were dropped, and why the latest one, once a minute at most."""
        now = time.monotonic()
        with self._changed:
            if not self._ledger.dropped or now - self._complained_at < _COMPLAIN_EVERY:
                return
            dropped, self._ledger.dropped = self._ledger.dropped, 0
        self._complained_at = now
        log.warning("events_dropped", count=dropped, error=self._reason)
        self._reason = _CROWD
