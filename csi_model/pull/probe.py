"""A question beside a transfer: whether its source delivers parts of a blob."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import structlog

from csi_model.errors import CsiModelError
from csi_model.pull.threads import begin

if TYPE_CHECKING:
    from csi_model.oci.descriptor import Descriptor
    from csi_model.sources.protocol import Source

log = structlog.get_logger(__name__)


class Probe:
    """Asks for a blob's last byte in a thread of its own; the answer is found in ``Source.ranges``, which stays as it is when none comes."""

    def __init__(self, source: Source, layer: Descriptor) -> None:
        self._reader = source.open(layer, offset=layer.size - 1, length=1)
        try:
            self._thread = begin(f"probe-{layer.digest.short}", self._run)
        except BaseException:
            self._reader.close()
            raise

    def close(self) -> None:
        """End the question."""
        self._reader.close()
        self._thread.join()

    def _run(self) -> None:
        try:
            with closing(self._reader):
                self._reader.readinto(memoryview(bytearray(1)))
        except CsiModelError as error:
            log.debug("going on over one connection", reason=str(error))
