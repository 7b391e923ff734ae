from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from csi_model.errors import UnavailableError
from csi_model.pull.pool import PIECE, Buffer, BufferPool, Permits, Piece
from csi_model.pull.stop import Stop

if TYPE_CHECKING:
    from collections.abc import Callable


def begin(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_a_host_gets_no_more_than_its_share_while_others_are_served() -> None:
    """The second buffer of a pool of two is kept from the host that has the first, and given to another."""
    pool, stop = BufferPool(2), Stop()
    pool.take("silent", stop)

    def wait() -> None:
        with pytest.raises(UnavailableError):
            pool.take("silent", stop)

    waiting = begin(wait)
    other = pool.take("lively", stop)
    waiting.join(0.05)
    assert waiting.is_alive()
    assert other.host == "lively"
    stop.set()
    waiting.join(5)
    assert not waiting.is_alive()


def test_slow_hosts_leave_as_much_as_each_of_them_has_to_the_next() -> None:
    """Hosts that take what they can and keep it: of 16 the first has half and the fifth still one; with each that is given back they come to have alike."""
    permits, stop, hosts = Permits(16), Stop(), "abcd"

    def take_all(host: str) -> int:
        while permits._fits(host):
            permits.acquire(host, stop)
        return permits._held[host]

    assert [take_all(host) for host in hosts] == [8, 4, 2, 1]
    assert take_all("late") == 1
    permits.release("late")
    for _ in range(10):
        for host in hosts:
            permits.release(host)
            take_all(host)
    assert {take_all(host) for host in hosts} == {3, 4}
    assert take_all("late") == 2


class _Snatched(list[Buffer]):
    """Free buffers, each taken by another host in the instant in which it is put there."""

    def __init__(self, pool: BufferPool) -> None:
        super().__init__()
        self._pool = pool
        self.taken: list[Buffer] = []

    def append(self, buffer: Buffer) -> None:
        super().append(buffer)
        self.taken.append(self._pool.take("other", Stop()))


def test_a_buffer_that_is_taken_as_it_is_given_costs_its_giver_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The permit that goes back is that of the host which gives, whoever has the buffer by then."""
    pool = BufferPool(4)
    buffer = pool.take("first", Stop())
    free = _Snatched(pool)
    monkeypatch.setattr(pool, "_free", free)
    pool.give(buffer)
    assert free.taken == [buffer]
    monkeypatch.setattr(pool, "_free", [])
    assert pool.lent() == 1
    pool.give(buffer)
    assert pool.lent() == 0
    for _ in range(2):  # half of them again, as before
        pool.take("first", Stop())


def test_memory_that_is_not_there_costs_no_permit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A buffer that could not be made is not counted as lent."""
    pool, stop = BufferPool(2), Stop()

    def exhausted(_: int) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("csi_model.pull.pool.aligned_buffer", exhausted)
        with pytest.raises(MemoryError):
            pool.take("a", stop)
    assert pool.lent() == 0
    assert len(pool.take("a", stop).view) == PIECE


def test_permits_go_to_who_came_first() -> None:
    """Freed permits are handed out in the order in which they were asked for."""
    permits, stop, order = Permits(1), Stop(), list[int]()
    permits.acquire("a", stop)
    threads = []
    for number in range(5):

        def take(number: int = number) -> None:
            permits.acquire("a", stop)
            order.append(number)
            permits.release("a")

        threads.append(begin(take))
        while len(permits._queue) != number + 1:
            time.sleep(0.001)
    permits.release("a")
    for thread in threads:
        thread.join(5)
    assert order == [0, 1, 2, 3, 4]
    assert permits.held() == 0


def test_a_stop_ends_the_wait_for_a_permit_and_takes_none() -> None:
    """Who is stopped while waiting leaves neither the queue nor the count changed."""
    permits, stop = Permits(1), Stop()
    permits.acquire("a", stop)
    failed = list[BaseException]()

    def wait() -> None:
        try:
            permits.acquire("a", stop)
        except UnavailableError as error:
            failed.append(error)

    thread = begin(wait)
    while not permits._queue:
        time.sleep(0.001)
    stop.set()
    thread.join(5)
    assert len(failed) == 1
    permits.release("a")
    assert permits.held() == 0
    with pytest.raises(UnavailableError, match="asking again"):
        permits.acquire("a", stop)


def test_a_piece_goes_back_when_its_last_user_lets_go() -> None:
    """A shared buffer is lent until every user has released it, and then used again."""
    pool, stop = BufferPool(1), Stop()
    buffer = pool.take("a", stop)
    piece = Piece(pool, buffer, offset=0, length=3)
    piece.share()
    piece.release()
    assert pool.lent() == 1
    assert len(piece.view) == 3
    piece.release()
    assert pool.lent() == 0
    assert pool.take("b", stop) is buffer
    assert len(buffer.view) == PIECE
