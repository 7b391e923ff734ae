"""A TCP relay whose answers share so many bytes a second: ``throttle.py PORT TARGET_PORT RATE_FILE``. The rate may change at any time."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

_PIECE = 16 * 1024
_TICK = 0.05


@dataclass(slots=True)
class Allowance:
    """Bytes that may pass now, shared by all connections; it saves up no more than a quarter of a second."""

    rate_file: Path
    left: float = 0.0
    filled: float = field(default_factory=time.monotonic)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def take(self, count: int) -> None:
        """Wait until ``count`` bytes may pass. Whoever waits longest is served first, so that no connection starves."""
        async with self.turn:
            while not self._allows(count):  # noqa: ASYNC110 - it waits for time to pass, of which no event tells
                await asyncio.sleep(_TICK)
            self.left -= count

    def _allows(self, count: int) -> bool:
        now, rate = time.monotonic(), int(self.rate_file.read_text() or 0)
        self.left = min(self.left + (now - self.filled) * rate, max(rate / 4, _PIECE))
        self.filled = now
        return self.left >= count


async def main(port: int, target: int, rate_file: Path) -> None:
    """Relay until killed."""
    allowance = Allowance(rate_file)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = None
        with contextlib.suppress(OSError):
            upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", target)
            asking = asyncio.create_task(_copy(reader, upstream, None))
            await _copy(upstream_reader, writer, allowance)
            asking.cancel()
        for stream in (writer, upstream):
            if stream is not None:
                stream.close()

    server = await asyncio.start_server(relay, "0.0.0.0", port)
    await server.serve_forever()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter, allowance: Allowance | None) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(_PIECE):
            if allowance is not None:
                await allowance.take(len(data))
            sink.write(data)
            await sink.drain()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
