"""Progress: how far a pull is, as a value and as a line for people."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from csi_model.oci.digest import Digest

_UNITS = ("B", "kB", "MB", "GB", "TB")
_SPAN = 10.0
"""Seconds that a rate looks back."""


@dataclass(frozen=True, slots=True)
class LayerProgress:
    """Bytes of one blob; those ``fetched`` arrived now, the others of ``done`` were here before."""

    digest: Digest
    total: int
    done: int
    fetched: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """Bytes of all blobs of a pull, those included that were here before; ``rate`` in bytes a second, None when not known yet."""

    total: int
    done: int
    rate: float | None
    layers: tuple[LayerProgress, ...]

    @property
    def seconds_left(self) -> float | None:
        """At the present rate; None when nothing moves."""
        return (self.total - self.done) / self.rate if self.rate else None

    def __str__(self) -> str:
        """Such as ``12.4 of 140 GB, 1.1 GB/s, about 2 min left``."""
        parts = [amount_of(self.done, self.total)]
        if self.rate is not None:
            parts.append(f"{amount(self.rate)}/s")
        if self.seconds_left is not None and self.done < self.total:
            parts.append(f"about {duration(self.seconds_left)} left")
        return ", ".join(parts)


class Rate:
    """Bytes a second, from what was done at the times when somebody asked.

    Only looks that found more than the one before count as samples: over a slow link minutes may pass between two pieces, in which the
    rate is not zero.
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def at(self, done: int, *, now: float | None = None) -> float | None:
        """The rate over the last seconds, or since the last piece but one; None at the first look or after a step back."""
        now = time.monotonic() if now is None else now
        if self._samples and done < self._samples[-1][1]:
            self._samples.clear()  # a layer began anew
        if not self._samples or done > self._samples[-1][1]:
            self._samples.append((now, done))
        while len(self._samples) > 2 and self._samples[1][0] <= now - _SPAN:
            self._samples.popleft()
        since, before = self._samples[0]
        return (done - before) / (now - since) if now - since > 0.01 else None


def amount(count: float) -> str:
    """A number of bytes for people, in powers of 1,000, with three digits."""
    unit = _unit(count)
    return f"{_digits(count, unit)} {_UNITS[unit]}"


def amount_of(done: int, total: int) -> str:
    """How much of how much, in the unit of the whole: ``12.4 of 140 GB``."""
    unit = _unit(total)
    return f"{_digits(done, unit)} of {_digits(total, unit)} {_UNITS[unit]}"


def _unit(count: float) -> int:
    unit = 0
    while unit < len(_UNITS) - 1 and count >= 1000 ** (unit + 1):
        unit += 1
    return unit


def _digits(count: float, unit: int) -> str:
    scaled = count / 1000**unit
    if unit == 0 or scaled >= 99.95:
        return f"{scaled:.0f}"
    return f"{scaled:.1f}"


def duration(seconds: float) -> str:
    """A time for people, in one unit."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{round(seconds / 3600)} h"
