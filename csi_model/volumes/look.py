"""A waiting publish's looks at the pull that it waits for, told to its observers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from csi_model.volumes.observer import Progressed, Pulled, Pulling

if TYPE_CHECKING:
    from csi_model.volumes.models import ModelFlight, ReadyModel
    from csi_model.volumes.observer import Tell


class Look:
    """Tells that bytes are on their way, how far they are, and that they are here; silent about a pull that has nothing to fetch."""

    def __init__(self, flight: ModelFlight, tell: Tell) -> None:
        self._flight = flight
        self._tell = tell
        self._said = False

    def __call__(self) -> None:
        """Look now."""
        progress = self._flight.progress()
        if progress is None:
            return
        here = progress.done - self._flight.fetched
        if not self._said and here < progress.total:
            self._said = True
            self._tell(Pulling(self._flight.source, progress.total, max(0, here)))
        elif self._said and progress.done < progress.total:
            self._tell(Progressed(progress))

    def last(self, model: ReadyModel) -> None:
        """The flight has brought the model."""
        self()  # it may have been faster than our first look
        flight = self._flight
        size = flight.known.size if flight.known is not None else 0
        self._tell(Pulled(model.manifest, size, flight.fetched, time.monotonic() - flight.began))
