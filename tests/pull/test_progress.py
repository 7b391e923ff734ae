from __future__ import annotations

import pytest

from csi_model.pull.progress import Progress, Rate, amount


@pytest.mark.parametrize(
    ("total", "done", "rate", "text"),
    [
        (140_000_000_000, 12_400_000_000, 1_100_000_000.0, "12.4 of 140 GB, 1.1 GB/s, about 2 min left"),
        (5_000_000, 0, None, "0.0 of 5.0 MB"),
        (5_000_000, 1_000_000, 0.0, "1.0 of 5.0 MB, 0 B/s"),
        (999, 999, 10.0, "999 of 999 B, 10 B/s"),
        (2_000_000, 1_000_000, 50_000.0, "1.0 of 2.0 MB, 50.0 kB/s, about 20 s left"),
        (9_000_000_000_000, 0, 100_000_000.0, "0.0 of 9.0 TB, 100 MB/s, about 25 h left"),
    ],
)
def test_progress_reads_well(total: int, done: int, rate: float | None, text: str) -> None:
    """The line says how much, how fast and how long, in the total's unit."""
    assert str(Progress(total=total, done=done, rate=rate, layers=())) == text


def test_amounts_keep_three_digits() -> None:
    """Sizes are told in the largest unit that leaves a whole digit."""
    assert [amount(n) for n in (0, 999, 1000, 99_940_000, 1e14)] == ["0 B", "999 B", "1.0 kB", "99.9 MB", "100 TB"]


def test_a_rate_forgets_the_distant_past_and_steps_back() -> None:
    """The rate is that of the last ten seconds, and starts anew when a layer does."""
    rate = Rate()
    assert rate.at(0, now=0.0) is None
    assert rate.at(100, now=1.0) == 100
    assert rate.at(200, now=20.0) == pytest.approx(100 / 19)
    assert rate.at(1200, now=30.0) == pytest.approx(100)
    assert rate.at(0, now=31.0) is None


def test_a_rate_between_two_pieces_is_not_zero() -> None:
    """Pieces that come once a minute make the rate that they come at, which sinks while the next one is late."""
    rate = Rate()
    assert rate.at(0, now=0.0) is None
    assert rate.at(0, now=30.0) == 0
    assert rate.at(600, now=60.0) == pytest.approx(10)
    assert rate.at(600, now=90.0) == pytest.approx(600 / 90)
    assert rate.at(1200, now=120.0) == pytest.approx(10)
    assert rate.at(1200, now=180.0) == pytest.approx(5)
