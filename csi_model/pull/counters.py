"""What pulls have done since the process started: numbers for whoever watches, and of no use to the pulls themselves."""

from __future__ import annotations

import re
import threading
import time
from bisect import bisect_left
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from csi_model.errors import CsiModelError, DiskError, StoppedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SECONDS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 180.0, 600.0, 1800.0, 7200.0)
"""Upper ends of the classes of pull times; what takes longer is in one more."""

_APART = {StoppedError: "stopped", DiskError: "disk"}
"""Failures that are unavailable for reasons of their own: nobody waited for the work, or the driver ends; and the node's disk is no registry."""

BUG = "bug"
OTHER = "other"
_MOST_HOSTS = 32
"""References are written by pods' authors: past so many registry hosts, bytes are counted as ``OTHER``'s."""


def kind_of(error: BaseException) -> str:
    """What failures like this one are counted as: its class among those of ``_APART`` or else the direct heirs of CsiModelError, such as ``not_found``."""
    for kind in type(error).__mro__:
        if kind in _APART:
            return _APART[kind]
        if CsiModelError in kind.__bases__:
            return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__.removesuffix("Error")).lower()
    return BUG


KINDS = (*sorted(kind_of(kind()) for kind in CsiModelError.__subclasses__()), *_APART.values(), BUG)
"""Everything that a failed pull can be counted as."""


@dataclass(frozen=True, slots=True)
class PullCounts:
    """The counts of one moment. ``seconds`` has one number for each class of times that pulls which succeeded took, ``fetched`` bytes by host."""

    started: int
    succeeded: int
    failed: Mapping[str, int]
    seconds: tuple[int, ...]
    seconds_sum: float
    fetched: Mapping[str, int]

    @property
    def in_flight(self) -> int:
        """Pulls that have neither succeeded nor failed."""
        return self.started - self.succeeded - sum(self.failed.values())


class Counters:
    """Counts pulls of models and the bytes of layers that arrive. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started = 0
        self._failed = dict.fromkeys(KINDS, 0)
        self._seconds = [0] * (len(SECONDS) + 1)
        self._seconds_sum = 0.0
        self._fetched: dict[str, int] = {}

    @contextmanager
    def pull(self) -> Iterator[None]:
        """Count the body as one pull of a model."""
        with self._lock:
            self._started += 1
        began = time.monotonic()
        try:
            yield
        except BaseException as error:
            with self._lock:
                self._failed[kind_of(error)] += 1
            raise
        took = time.monotonic() - began
        with self._lock:
            self._seconds[bisect_left(SECONDS, took)] += 1
            self._seconds_sum += took

    def arrived(self, host: str, count: int) -> None:
        """Count bytes of a layer that ``host`` has just delivered."""
        with self._lock:
            known = host in self._fetched or len(self._fetched) < _MOST_HOSTS
            key = host if known else OTHER
            self._fetched[key] = self._fetched.get(key, 0) + count

    def read(self) -> PullCounts:
        """What was counted until now, all of one moment."""
        with self._lock:
            return PullCounts(
                started=self._started,
                succeeded=sum(self._seconds),
                failed=dict(self._failed),
                seconds=tuple(self._seconds),
                seconds_sum=self._seconds_sum,
                fetched=dict(self._fetched),
            )
