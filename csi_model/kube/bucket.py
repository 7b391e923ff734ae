"""A token bucket whose clock is passed in."""

from __future__ import annotations


class Bucket:
    """Lets ``burst`` through at once and one more every ``every`` seconds. Not safe to use from several threads at once."""

    def __init__(self, *, burst: int, every: float) -> None:
        self._burst = burst
        self._every = every
        self._tokens = float(burst)
        self._at: float | None = None

    def take(self, now: float) -> bool:
        """Whether one may pass now; it then has."""
        # A clock that was set back refills nothing until it has caught up, and takes nothing away.
        passed = 0.0 if self._at is None else max(0.0, now - self._at)
        self._tokens = min(self._burst, self._tokens + passed / self._every)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
