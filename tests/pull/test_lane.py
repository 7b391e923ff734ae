from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from structlog.contextvars import bound_contextvars, get_contextvars

from csi_model.errors import NoSpaceError
from csi_model.pull.lane import Ahead, Lane
from csi_model.pull.pool import BufferPool, Piece
from csi_model.pull.stop import Stop

if TYPE_CHECKING:
    from collections.abc import Iterator


def a_piece(pool: BufferPool, offset: int) -> Piece:
    return Piece(pool, pool.take("host", Stop()), offset=offset, length=1)


def put(lane: Lane, piece: Piece, *, beside: bool) -> None:
    try:
        lane.put(piece, beside=beside)
    finally:
        piece.release()


def test_order_holds_while_the_work_moves_between_threads() -> None:
    """Pieces are worked on in their order though every few of them the lane changes between its own thread and the caller's."""
    pool, seen, threads = BufferPool(16), list[int](), set[int]()

    def work(piece: Piece) -> None:
        seen.append(piece.offset)
        threads.add(threading.get_ident())

    lane = Lane("test", work)
    for offset in range(60):
        put(lane, a_piece(pool, offset), beside=offset // 3 % 2 == 0)
    lane.finish()
    assert seen == list(range(60))
    assert len(threads) == 2
    assert pool.lent() == 0


@pytest.mark.parametrize("beside", [True, False])
def test_an_error_reaches_the_caller_and_no_buffer_is_lost(*, beside: bool) -> None:
    """What the work raises comes out of put or finish, later pieces are not worked on, and all buffers are back."""
    pool, seen = BufferPool(8), list[int]()

    def work(piece: Piece) -> None:
        if piece.offset == 2:
            msg = "full"
            raise NoSpaceError(msg)
        seen.append(piece.offset)

    lane = Lane("test", work)

    def run() -> None:
        for offset in range(10):
            put(lane, a_piece(pool, offset), beside=beside)
        lane.finish()

    with pytest.raises(NoSpaceError):
        run()
    lane.close()
    assert seen == [0, 1]
    assert pool.lent() == 0


def test_ahead_delivers_in_order_and_then_the_error() -> None:
    """Items come as they were made, and an error in making them comes after those made before."""

    def items() -> Iterator[object]:
        yield from range(5)
        msg = "full"
        raise NoSpaceError(msg)

    got = list[object]()
    ahead = Ahead[object]("test", items(), depth=2, drop=lambda _: None)
    with pytest.raises(NoSpaceError):
        got.extend(iter(ahead))
    ahead.close()
    assert got == [0, 1, 2, 3, 4]
    dropped = list[int]()
    early = Ahead("test", iter(range(100)), depth=2, drop=dropped.append)
    assert next(iter(early)) == 0
    early.close()
    assert dropped
    assert dropped == list(range(1, 1 + len(dropped)))


def test_threads_log_as_the_one_that_began_them() -> None:
    """Log lines of a lane's or a fetch's own thread carry the fields of the pull that they work for."""
    seen = list[tuple[str, dict[str, object]]]()

    def look(_: object) -> None:
        seen.append((threading.current_thread().name, get_contextvars()))

    with bound_contextvars(reference="registry.example/x:v1"):
        lane = Lane("hash", look)
        put(lane, a_piece(BufferPool(2), 0), beside=True)
        lane.finish()
        ahead = Ahead("fetch", map(look, [1]), depth=1, drop=lambda _: None)
        ahead.close()
    assert seen == [(name, {"reference": "registry.example/x:v1"}) for name in ("hash", "fetch")]
