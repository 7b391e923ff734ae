"""Pauses that double."""

from __future__ import annotations

import random


class Backoff:
    """Seconds to wait before the next try, doubling from ``first`` to ``longest``, each a little off so that nodes fall out of step."""

    def __init__(self, *, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._pause = first

    def next(self) -> float:
        """The pause to make now."""
        pause = self._pause
        self._pause = min(self._longest, pause * 2)
        return pause * random.uniform(0.8, 1.2)  # noqa: S311 - not for secrets

    def reset(self) -> None:
        """Begin anew, after a success."""
        self._pause = self._first
