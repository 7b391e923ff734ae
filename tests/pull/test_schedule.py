from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from csi_model.pull.schedule import Schedule

if TYPE_CHECKING:
    from csi_model.pull.schedule import Slot


def test_each_host_has_slots_of_its_own() -> None:
    """One host's work fills its slots and no other's."""
    schedule, go, ran = Schedule(2), threading.Event(), list[str]()

    def blocked(_: Slot) -> None:
        ran.append("silent")
        go.wait(10)

    for _ in range(5):
        schedule.submit("silent", 0, blocked)
    done = threading.Event()
    schedule.submit("lively", 0, lambda _: done.set())
    assert done.wait(5)
    deadline = time.monotonic() + 5
    while len(ran) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ran == ["silent", "silent"]
    go.set()
    assert schedule.join(5)
    assert ran == ["silent"] * 5
    assert schedule.running() == 0


def test_the_first_layers_of_every_pull_come_first() -> None:
    """A later pull's first layer overtakes the tail of an earlier one."""
    schedule, go, order = Schedule(1), threading.Event(), list[str]()
    schedule.submit("h", 0, lambda _: _wait(go))
    for position in (1, 2, 3):
        schedule.submit("h", position, lambda _, position=position: order.append(f"big {position}"))  # type: ignore[misc]
    schedule.submit("h", 0, lambda _: order.append("small 0"))
    schedule.submit("h", 2, lambda _: order.append("small 2"))
    go.set()
    assert schedule.join(5)
    assert order == ["small 0", "big 1", "big 2", "small 2", "big 3"]


def test_work_that_left_its_slot_lets_the_next_begin() -> None:
    """While one layer is synced, the next is fetched; but only so many may be finishing."""
    schedule, go = Schedule(1), threading.Event()
    started, lock = list[int](), threading.Lock()

    def work(slot: Slot) -> None:
        slot.leave()
        slot.leave()
        with lock:
            started.append(1)
        go.wait(10)

    for _ in range(30):
        schedule.submit("h", 0, work)
    deadline = time.monotonic() + 5
    while len(started) < 9 and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)
    assert len(started) == 9  # eight that finish, and one that holds the slot since no more may leave
    assert schedule.running() == 1
    assert not schedule.join(0.01)
    go.set()
    assert schedule.join(5)
    assert len(started) == 30
    assert schedule.running() == 0


def _wait(event: threading.Event) -> None:
    event.wait(10)
