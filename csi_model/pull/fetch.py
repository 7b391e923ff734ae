"""Fetching: a blob's bytes as pieces, in order, over one connection or several.

A layer begins on one connection, which is the cheapest. When its pieces turn out to spend their time on the way (a far registry, or one
that rations each connection), the rest is fetched in short ranges over as many connections as are allowed, through an ordered window.
Where it is not known whether the source delivers parts of a blob, it is asked beside the first connection, which goes on; a registry that
ignores ranges, now or later, is read over one. Pieces that come slowly while this process keeps its CPUs busy are slow for want of CPU time,
which more connections would only cost; and where more time goes by between pieces than in waiting for them, it is the disk that is slow.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from csi_model.errors import BusyError, RangesIgnoredError
from csi_model.pull.body import expect_end, next_piece
from csi_model.pull.pool import PIECE, Piece
from csi_model.pull.probe import Probe
from csi_model.pull.window import Window

if TYPE_CHECKING:
    from collections.abc import Generator

    from csi_model.oci.descriptor import Descriptor
    from csi_model.pull.pool import BufferPool
    from csi_model.pull.stop import Stop
    from csi_model.sources.protocol import Source

log = structlog.get_logger(__name__)

_SLOW_PIECE = 0.020
"""Seconds that a piece takes on a connection of 200 MB/s: faster ones are not worth a second connection."""

_SAMPLE = 3
"""Slow pieces in a row that make a layer go wide."""

_WAITING = 0.5
"""Share of a layer's time that is spent in waiting for its bytes, below which they are not what it waits for."""

_WORTH_SPLITTING = 8 * PIECE

_BUSY = 0.4
"""Share of the CPUs' time from which on this process is taken for busy; whoever shares them with it has work too."""


@dataclass(slots=True)
class _Clock:
    """Wall time and the process's CPU time since it was made."""

    wall: float = field(default_factory=time.monotonic)
    cpu: float = field(default_factory=time.process_time)

    def busy(self) -> bool:
        """Whether the process has kept its CPUs busy."""
        return time.process_time() - self.cpu > _BUSY * len(os.sched_getaffinity(0)) * (time.monotonic() - self.wall)


def host_of(source: Source) -> str:
    """Whose share of buffers and permits a source draws on: the registry, or the layout."""
    return source.name.partition("/")[0]


def fetch(
    source: Source, layer: Descriptor, *, offset: int, pool: BufferPool, stop: Stop, connections: int = 1
) -> Generator[Piece, None, None]:
    """The pieces of a blob from ``offset`` to its end; the caller releases each. Closing the iterator lets go of the connections.

    Raises:
        CorruptContentError: the blob is longer or shorter than its descriptor says.
        UnavailableError: ``stop`` was set, or as ``BlobReader``; and its other errors.
    """
    host = host_of(source)
    slow, clock = 0, _Clock()
    with ExitStack() as stack:
        reader = stack.enter_context(closing(source.open(layer, offset=offset)))
        stack.enter_context(stop.waking(reader.close))
        probed = False
        ended = time.monotonic()
        while offset < layer.size:
            piece, waited = next_piece(reader, layer, offset, pool=pool, host=host, stop=stop)
            began, ended = ended, time.monotonic()
            if waited > max(_SLOW_PIECE, _WAITING * (ended - began)):
                slow += 1
            else:
                slow, clock = 0, _Clock()
            offset += piece.length
            yield piece
            if slow < _SAMPLE or connections == 1 or layer.size - offset < _WORTH_SPLITTING:
                continue
            if clock.busy():
                slow, clock = 0, _Clock()
            elif source.ranges:
                break
            elif source.ranges is None and not probed:
                probed = True
                with suppress(BusyError):
                    stack.enter_context(closing(Probe(source, layer)))
        else:
            expect_end(reader, layer)
            return
    log.debug("fetching over several connections", blob=str(layer.digest), connections=connections, offset=offset)
    try:
        with closing(Window(source, layer, offset, host=host, pool=pool, stop=stop, connections=connections)) as window:
            for piece in window.pieces():
                offset += piece.length
                yield piece
    except (BusyError, RangesIgnoredError) as error:
        log.warning("fetching over one connection after all", blob=str(layer.digest), offset=offset, reason=str(error))
        yield from fetch(source, layer, offset=offset, pool=pool, stop=stop)
