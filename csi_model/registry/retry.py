"""When to ask again and how long to wait before: one place for every retry.

An attempt that made progress gives the whole budget back, so that a huge blob over a poor line ends, and a dead server is given up.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import random
from typing import TYPE_CHECKING

import structlog

from csi_model.errors import UnavailableError

if TYPE_CHECKING:
    from csi_model.registry.cancellation import Cancellation
    from csi_model.registry.settings import HttpSettings

log = structlog.get_logger(__name__)


class TransientError(UnavailableError):
    """A failure that another attempt may not meet; ``after`` is the pause that the server asked for, in seconds."""

    def __init__(self, message: str, *, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class Retry:
    """The budget of one operation. Used by one thread at a time."""

    def __init__(self, settings: HttpSettings, cancellation: Cancellation) -> None:
        self._settings = settings
        self._cancellation = cancellation
        self._failures = 0

    def progress(self) -> None:
        """Something was achieved: the budget starts anew."""
        self._failures = 0

    def again(self, error: TransientError) -> None:
        """Wait before the next attempt, or give up.

        A server that asks for a longer pause than ``retry_after_limit`` is not asked earlier, and nobody is kept waiting for it without
        being told why: the pull ends, and whoever wants it then asks again.

        Raises:
            UnavailableError: the budget is used up (``error`` itself), the server wants too long a pause, or the operation was cancelled
                while waiting.
        """
        limit = self._settings.retry_after_limit
        if error.after is not None and error.after > limit:
            msg = f"{error}; it asks for a pause of {error.after:.0f} s, and a pull waits for {limit:g} s at most"
            raise UnavailableError(msg) from error
        self._failures += 1
        if self._failures > self._settings.retries:
            raise error
        pause = pause_before(self._failures, error.after, self._settings, random.random())  # noqa: S311 - jitter, not a secret
        log.debug("retrying", reason=str(error), failures=self._failures, pause=round(pause, 3))
        self._cancellation.sleep(pause)


def pause_before(attempt: int, after: float | None, settings: HttpSettings, luck: float) -> float:
    """Seconds to wait before retry number ``attempt`` (from 1); ``luck`` in [0, 1) spreads clients that failed together."""
    if after is not None:
        # Never earlier than was asked for, and not all at the same moment.
        return after + luck * settings.backoff
    doubled: float = settings.backoff * 2 ** min(attempt - 1, 30)
    return min(doubled, settings.backoff_limit) * (1 - luck / 2)


def parse_retry_after(value: str | None, now: dt.datetime) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110, section 10.2.3); None when it is absent or means nothing."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    date = parse_date(text)
    return None if date is None else max(0.0, (date - now).total_seconds())


def parse_date(text: str) -> dt.datetime | None:
    """The moment that a header's date names (RFC 9110, section 5.6.7), in UTC where it names no zone; None when it is not a date."""
    try:
        date = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # OverflowError: a zone that is further away than years are counted
        return None
    return date.replace(tzinfo=date.tzinfo or dt.UTC)
