"""Which events are to be written: equal notes are one event with a count, and nobody floods the API. Values and time in, values out.

A note joins its series. The series waits in line to be written, once however often it happens meanwhile; a series that was written
before is updated. Each object has a bucket of its own, so that one pod in a crash loop takes no room from others; what its bucket
holds back is counted all the same and told by the next write. The line has an end: past it the oldest is dropped.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from csi_model.kube.bucket import Bucket

if TYPE_CHECKING:
    from collections.abc import Hashable

    from csi_model.kube.notes import Note, Subject

_MAX_WAITING = 1000
_MAX_SERIES = 4096
_MAX_OBJECTS = 1024
_BURST = 25
_REFILL = 30.0
_SERIES_ENDS_AFTER = 3600.0
"""Seconds of silence after which a note begins anew; the API server forgets an event about then."""
_ATTEMPTS = 8
_NAME = 220


@dataclass(frozen=True, slots=True)
class Post:
    """One event to write, as it stands now: new, or the update of one that the API has. Times are Unix times."""

    key: Hashable
    name: str
    note: Note
    count: int
    first: float
    last: float
    exists: bool


@dataclass(slots=True)
class _Series:
    name: str
    note: Note
    first: float
    last: float
    count: int = 1
    exists: bool = False
    attempts: int = 0


class Ledger:
    """Every recent series, and the line of those to be written. Not safe to use from several threads at once."""

    def __init__(self) -> None:
        self._series: OrderedDict[Hashable, _Series] = OrderedDict()
        self._line: OrderedDict[Hashable, None] = OrderedDict()
        self._buckets: OrderedDict[Subject, Bucket] = OrderedDict()
        self.dropped = 0
        """Events that were given up, since whoever logs them set it to zero."""

    def __len__(self) -> int:
        return len(self._line)

    def add(self, note: Note, now: float) -> None:
        """Have the note written, with what happened before it."""
        key = note.key
        series = self._series.get(key)
        if series is None or now - series.last > _SERIES_ENDS_AFTER:
            series = self._series[key] = _Series(_name(note.about), note, now, now)
        else:
            series.note, series.last = note, max(now, series.last)
            series.count += 1
        self._series.move_to_end(key)
        if key not in self._line and self._bucket(note.about).take(now):
            self._line[key] = None
        self._forget()

    def next(self) -> Post | None:
        """Take the oldest out of the line; tell how it went by ``written``, ``failed``, ``lost`` or ``refused``."""
        if not self._line:
            return None
        key, _ = self._line.popitem(last=False)
        series = self._series[key]
        return Post(key, series.name, series.note, series.count, series.first, series.last, series.exists)

    def written(self, post: Post) -> None:
        """The API has it."""
        series = self._series.get(post.key)
        if series is not None and series.name == post.name:
            series.exists, series.attempts = True, 0

    def failed(self, post: Post) -> None:
        """It could not be written now: it goes back to the head of the line, until it has been tried often enough."""
        series = self._series.get(post.key)
        if series is None or series.name != post.name:
            return
        series.attempts += 1
        if series.attempts >= _ATTEMPTS:
            series.attempts = 0
            self._line.pop(post.key, None)
            self.dropped += 1
            return
        self._line[post.key] = None
        self._line.move_to_end(post.key, last=False)

    def lost(self, post: Post) -> None:
        """The API no longer has what was to be updated: it is made anew."""
        series = self._series.get(post.key)
        if series is not None:
            series.exists = False
        self.failed(post)

    def refused(self, _post: Post) -> None:
        """The API will never take it."""
        self.dropped += 1

    def _bucket(self, about: Subject) -> Bucket:
        bucket = self._buckets.setdefault(about, Bucket(burst=_BURST, every=_REFILL))
        self._buckets.move_to_end(about)
        return bucket

    def _forget(self) -> None:
        while len(self._line) > _MAX_WAITING:
            self._line.popitem(last=False)
            self.dropped += 1
        while len(self._buckets) > _MAX_OBJECTS:
            self._buckets.popitem(last=False)
        while len(self._series) > _MAX_SERIES:
            key, _ = self._series.popitem(last=False)
            if self._line.pop(key, self) is None:
                self.dropped += 1


def _name(about: Subject) -> str:
    """A name for an event, unlike any other; it begins with its object's, as those of other components do."""
    return f"{about.name[:_NAME].rstrip('-.')}.{secrets.token_hex(8)}"
