"""Whether a registry answers at all: one request, no credentials, no retries. For people who look for what is wrong."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from csi_model.registry.cancellation import Cancellation
from csi_model.registry.origin import Origin, Url
from csi_model.registry.retry import parse_date
from csi_model.registry.settings import api_host
from csi_model.registry.transport import Request, Transport

if TYPE_CHECKING:
    from csi_model.registry.settings import HttpSettings


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer's status, and by how many seconds the registry's clock is ahead of ours (to a second or so), where it tells."""

    origin: str
    status: int
    ahead: float | None

    @property
    def is_registry(self) -> bool:
        """Whether it is the answer that the distribution specification (end-1) has for ``/v2/``: yes, or who are you."""
        return self.status in {200, 401}


def ping(registry: str, settings: HttpSettings) -> Pong:
    """Ask the registry, named as in references, whether it speaks the distribution protocol.

    Raises:
        UnavailableError: it does not answer, or its certificate is not trusted; says which.
        InvalidRequestError: it has a port that is none, or its configured CA file cannot be used.
    """
    origin = Origin.of_registry(api_host(registry), settings)
    transport = Transport(settings)
    try:
        response = transport.send(Request("GET", Url(origin, "/v2/"), {}), Cancellation())
        try:
            return Pong(str(origin), response.status, _ahead(response.header("Date")))
        finally:
            response.release()
    finally:
        transport.close()


def _ahead(date: str | None) -> float | None:
    told = parse_date(date) if date is not None else None
    return (told - dt.datetime.now(dt.UTC)).total_seconds() if told is not None else None
