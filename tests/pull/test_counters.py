"""What is counted of pulls."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from csi_model import errors
from csi_model.pull.counters import BUG, KINDS, OTHER, Counters, kind_of


def test_a_pull_is_counted_where_it_stands() -> None:
    """It is in flight until it ends, and then succeeded with its time in the class where it belongs."""
    counters = Counters()
    with counters.pull():
        counts = counters.read()
        assert (counts.started, counts.in_flight, counts.succeeded) == (1, 1, 0)
    counts = counters.read()
    assert (counts.started, counts.in_flight, counts.succeeded) == (1, 0, 1)
    assert counts.seconds[0] == 1
    assert 0 < counts.seconds_sum < 0.1


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.NotFoundError(), "not_found"),
        (errors.StillPullingError(), "busy"),
        (errors.NoSpaceError(), "no_space"),
        (errors.StoppedError(), "stopped"),
        (errors.DiskMissingError(), "disk"),
        (errors.StateDamagedError(), "disk"),
        (ZeroDivisionError(), BUG),
    ],
)
def test_a_failure_is_counted_by_its_kind(error: Exception, kind: str) -> None:
    """A failed pull is counted once, under its error's kind, and the error goes on."""
    counters = Counters()

    def fail() -> None:
        with counters.pull():
            raise error

    with pytest.raises(type(error)):
        fail()
    counts = counters.read()
    assert {name: count for name, count in counts.failed.items() if count} == {kind: 1}
    assert (counts.in_flight, counts.succeeded) == (0, 0)


def test_every_error_of_ours_has_a_kind() -> None:
    """Each class in errors.py is counted as one of the kinds that are 0 from the start."""
    ours = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.CsiModelError)]
    assert {kind_of(kind()) for kind in ours if kind is not errors.CsiModelError} == set(KINDS) - {BUG}
    assert len(set(KINDS)) == len(KINDS)


def test_bytes_are_counted_by_host() -> None:
    """Bytes of many threads add up, host by host."""
    counters = Counters()
    with ThreadPoolExecutor(8) as pool:
        for number in range(1000):
            pool.submit(counters.arrived, f"r{number % 2}.example", 3)
    assert counters.read().fetched == {"r0.example": 1500, "r1.example": 1500}


def test_hosts_are_bounded() -> None:
    """Pods' authors may name any number of registries: from the thirty-third on their bytes are counted together."""
    counters = Counters()
    for number in range(100):
        counters.arrived(f"r{number}.example", 1)
    counters.arrived("r0.example", 1)
    fetched = counters.read().fetched
    assert len(fetched) == 33
    assert (fetched["r0.example"], fetched[OTHER]) == (2, 68)
