from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from csi_model.errors import BusyError, NotFoundError, StillPullingError, UnavailableError
from csi_model.volumes.flight import Flight, Flights, Waiter

if TYPE_CHECKING:
    from collections.abc import Callable


def _blocked(release: threading.Event) -> tuple[list[int], Callable[[Flight[str]], str]]:
    runs: list[int] = []

    def work(_flight: Flight[str]) -> str:
        runs.append(1)
        assert release.wait(10)
        return "done"

    return runs, work


def test_many_waiters_share_one_run() -> None:
    """However many ask for a key at once, its work runs once and all get its result."""
    release = threading.Event()
    runs: list[int] = []
    results: list[str] = []
    flights: Flights[Flight[str]] = Flights(Flight, "test", linger=60)

    def work(_flight: Flight[str]) -> str:
        runs.append(1)
        assert release.wait(10)
        return "done"

    threads = [threading.Thread(target=lambda: results.append(flights.join("k", work).wait())) for _ in range(20)]
    for thread in threads:
        thread.start()
    flight = flights.join("k", work)
    release.set()
    assert flight.wait() == "done"
    for thread in threads:
        thread.join()
    assert results == ["done"] * 20
    assert len(runs) == 1


def test_work_that_gets_no_thread_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can start, who asks is told to come again, and is served when he does."""
    flights: Flights[Flight[str]] = Flights(Flight, "test", linger=60)

    def at_the_limit(_: threading.Thread) -> None:
        msg = "can't start new thread"
        raise RuntimeError(msg)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", at_the_limit)
        with pytest.raises(BusyError, match="no more threads"):
            flights.join("k", lambda _: "done")
    assert flights.under_way() == ()
    assert flights.join("k", lambda _: "done").wait() == "done"


def test_a_deadline_ends_the_wait_and_not_the_work() -> None:
    """A wait that runs out says how far the work is; a later wait gets the result of the same run."""
    release = threading.Event()
    runs, work = _blocked(release)
    flights: Flights[Flight[str]] = Flights(Flight, "test", linger=60)
    flight = flights.join("k", work)
    flight.describe = lambda: "1 of 2 GB"
    with pytest.raises(StillPullingError, match="1 of 2 GB"):
        flight.wait(time.monotonic() + 0.01)
    assert not flight.cancelled
    release.set()
    assert flights.join("k", work).wait() == "done"
    assert len(runs) == 1


def test_an_abandoned_flight_is_asked_to_end_after_its_linger() -> None:
    """With nobody waiting for longer than the linger, the work is told to stop."""
    flights: Flights[Flight[str]] = Flights(Flight, "test", linger=0.05)

    def work(flight: Flight[str]) -> str:
        while not flight.cancelled:
            time.sleep(0.005)
        msg = "nobody waits"
        raise UnavailableError(msg)

    with pytest.raises(StillPullingError):
        flights.join("k", work).wait(time.monotonic() + 0.01)
    flight = flights.join("k", work)
    deadline = time.monotonic() + 5
    while not flight.finished and time.monotonic() < deadline:
        time.sleep(0.005)
    assert flight.finished


def test_an_error_reaches_every_waiter_and_the_next_join_starts_anew() -> None:
    """A failed flight is not remembered."""
    flights: Flights[Flight[str]] = Flights(Flight, "test", linger=60)

    def fail(_flight: Flight[str]) -> str:
        msg = "no such tag"
        raise NotFoundError(msg)

    with pytest.raises(NotFoundError):
        flights.join("k", fail).wait()
    flights.stop(1)
    again: Flights[Flight[str]] = Flights(Flight, "test", linger=60)
    assert again.join("k", lambda _flight: "ok").wait() == "ok"


def test_a_cancelled_waiter_leaves_at_once_and_alone() -> None:
    """Cancelling one waiter neither ends the work nor the other waits."""
    release = threading.Event()
    _, work = _blocked(release)
    flights: Flights[Flight[str]] = Flights(Flight, "test", linger=60)
    flight = flights.join("k", work)
    waiter = Waiter()
    threading.Timer(0.05, waiter.cancel).start()
    with pytest.raises(BusyError, match="unpublished"):
        flight.wait(time.monotonic() + 10, waiter)
    release.set()
    assert flight.wait() == "done"


def test_stop_wakes_the_waiters() -> None:
    """At stop every waiter gets UnavailableError though the work has not ended, and no new flight begins."""
    release = threading.Event()
    _, work = _blocked(release)
    flights: Flights[Flight[str]] = Flights(Flight, "test", linger=60)
    flight = flights.join("k", work)
    stopping = threading.Timer(0.05, flights.stop, (5,))
    stopping.start()
    with pytest.raises(UnavailableError, match="stopping"):
        flight.wait(time.monotonic() + 10)
    with pytest.raises(UnavailableError):
        flights.join("other", work)
    release.set()
    stopping.join(5)
    assert flight.finished
