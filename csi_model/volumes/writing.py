"""How each pull is written, given the memory that the others which run will still fill."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from csi_model.linux import memory
from csi_model.mount.strategy import WriteMode, choose_writes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from csi_model.pull.flight import Pull
    from csi_model.pull.puller import LayerWant, Puller
    from csi_model.sources.protocol import Source


class Writing:
    """Begins pulls, one decision after another, and knows those that fill the page cache. Safe to use from many threads."""

    def __init__(self, puller: Puller) -> None:
        self._puller = puller
        self._deciding = threading.Lock()
        self._filling: list[Pull] = []

    @contextmanager
    def pull(self, source: Source, wants: Sequence[LayerWant], *, missing: int, all_whole_raw: bool) -> Iterator[Pull]:
        """A pull of ``wants``, of which ``missing`` bytes are not here; left at the body's end.

        Bytes of layers that two pulls share count for each of them: rather written past the cache than over somebody's memory.

        Raises:
            NoSpaceError, UnavailableError: as ``Puller.pull``.
        """
        with self._deciding:
            mode = self._mode(missing, all_whole_raw=all_whole_raw)
            pull = self._puller.pull(source, wants, write_mode=mode)
            if mode is WriteMode.BUFFERED:
                self._filling.append(pull)
        try:
            with pull:
                yield pull
        finally:
            with self._deciding:
                if pull in self._filling:
                    self._filling.remove(pull)

    def _mode(self, missing: int, *, all_whole_raw: bool) -> WriteMode:
        filling = sum(max(0, progress.total - progress.done) for progress in (pull.progress() for pull in self._filling))
        room = memory.cgroup_room()
        return choose_writes(
            missing,
            available=max(0, memory.available_bytes() - filling),
            cgroup_room=None if room is None else max(0, room - filling),
            all_whole_raw=all_whole_raw,
        )
