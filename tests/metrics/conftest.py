"""Readings with a number of its own in every place, and the health of a driver that a test can change."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from csi_model.linux.disk import Space
from csi_model.metrics.readings import Readings
from csi_model.pull.counters import KINDS, SECONDS, PullCounts
from csi_model.store.records import Counts
from csi_model.store.usage import Usage


@dataclass
class FakeHealth:
    """A driver's health, as a test wants it."""

    is_registered: bool = False
    dead: str | None = None
    unready: str | None = None

    def dead_because(self) -> str | None:
        return self.dead

    def unready_because(self) -> str | None:
        return self.unready


@pytest.fixture
def health() -> FakeHealth:
    return FakeHealth()


@pytest.fixture
def readings() -> Readings:
    return Readings(
        publishes_waiting=1,
        pulls=PullCounts(
            started=20,
            succeeded=11,
            failed={**dict.fromkeys(KINDS, 0), "unavailable": 3, "stopped": 2},
            seconds=(1, 2, 3, *[0] * (len(SECONDS) - 3), 5),
            seconds_sum=36001.5,
            fetched={"registry.example:5000": 7, "oci-layout:": 8},
        ),
        buffers=9,
        usage=Usage(content=10, ingest=11, views=12),
        recorded=Counts(models=13, references=14, views=15, publications=16),
        views_mounted=17,
        disk=Space(total=18, free=19, inodes_total=20, inodes_free=21),
        rung="erofs-direct",
        rung_forced=False,
    )
