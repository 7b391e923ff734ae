from __future__ import annotations

import datetime as dt
import threading
import time

import pytest

from csi_model.errors import UnavailableError
from csi_model.registry.cancellation import Cancellation
from csi_model.registry.retry import Retry, TransientError, parse_retry_after, pause_before
from csi_model.registry.settings import HttpSettings

NOW = dt.datetime(2026, 1, 1, 12, 0, 0, tzinfo=dt.UTC)
SETTINGS = HttpSettings(retries=2, backoff=0.5, backoff_limit=4, retry_after_limit=60)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7),
        (" 0 ", 0),
        ("Thu, 01 Jan 2026 12:00:30 GMT", 30),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0),
        ("99999999999999999999", 999999999),
        ("-3", None),
        ("soon", None),
        ("", None),
        ("Thu, 01 Jan 2026 12:00:30 +99999999999999999", None),
        ("Thu, 01 Jan 2026 12:00:30 -99999999999999999", None),
        ("Thu, 01 Jan 99999 12:00:30 GMT", None),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    """Both forms of Retry-After are understood, a past date is no pause, and nonsense is as if nothing was said."""
    assert parse_retry_after(value, NOW) == seconds


def test_pauses_double_up_to_a_limit() -> None:
    """Without a word from the server pauses double from the first up to the limit."""
    assert [pause_before(n, None, SETTINGS, 0) for n in (1, 2, 3, 4, 5, 500)] == [0.5, 1, 2, 4, 4, 4]


def test_pauses_are_spread() -> None:
    """Luck takes off up to half of a pause, and adds to what a server asked for, so that clients do not come back together."""
    assert pause_before(2, None, SETTINGS, 0.999) == pytest.approx(0.5, abs=0.01)
    assert pause_before(1, 10, SETTINGS, 0) == 10
    assert pause_before(1, 10, SETTINGS, 0.5) == 10.25


def test_a_pause_that_is_too_long_ends_it_at_once() -> None:
    """A Retry-After of a day neither stops a pull for a day nor is cut short: the pull ends, and its error names the pause."""
    retry = Retry(SETTINGS, Cancellation())
    started = time.monotonic()
    with pytest.raises(UnavailableError, match="429; it asks for a pause of 86400 s, and a pull waits for 60 s at most") as ended:
        retry.again(TransientError("429", after=86400))
    assert not isinstance(ended.value, TransientError)
    assert time.monotonic() - started < 5
    assert pause_before(1, 60, SETTINGS, 0) == 60


def test_budget_ends_and_progress_renews_it() -> None:
    """After the configured number of failures in a row the failure itself is raised; progress in between starts the count anew."""
    retry = Retry(HttpSettings(retries=2, backoff=0.001), Cancellation())
    error = TransientError("again")
    retry.again(error)
    retry.again(error)
    retry.progress()
    retry.again(error)
    retry.again(error)
    with pytest.raises(TransientError, match="again"):
        retry.again(error)


def test_cancelling_ends_a_pause_at_once() -> None:
    """A pull that stops does not sit out its pause."""
    cancellation = Cancellation()
    retry = Retry(SETTINGS, cancellation)
    timer = threading.Timer(0.05, cancellation.cancel)
    timer.start()
    started = time.monotonic()
    with pytest.raises(UnavailableError, match="stopped"):
        retry.again(TransientError("again", after=30))
    timer.join()
    assert time.monotonic() - started < 5
