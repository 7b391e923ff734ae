"""Calls, counted and timed for whoever measures; what is made of the numbers is not known here."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

import grpc

from csi_model.csi.interceptor import CallInterceptor

if TYPE_CHECKING:
    from csi_model.csi.interceptor import Behaviour


class CallMeter(Protocol):
    """Is told of each call; returns at once and raises nothing."""

    def began(self, method: str) -> None:
        """A call of ``method``, such as ``NodePublishVolume``, has come; methods that nobody serves are not told."""

    def ended(self, method: str, code: str, seconds: float) -> None:
        """It was answered with ``code``, such as ``OK`` or ``ABORTED``."""


class MeterInterceptor(CallInterceptor):
    """Tells a meter of every call; stands outside the interceptor that sets the code."""

    def __init__(self, meter: CallMeter) -> None:
        self._meter = meter

    def around(self, method: str, behaviour: Behaviour, request: Any, context: grpc.ServicerContext) -> Any:
        """Answer between the two."""
        self._meter.began(method)
        began = time.monotonic()
        try:
            return behaviour(request, context)
        finally:
            code: grpc.StatusCode = context.code() or grpc.StatusCode.OK  # type: ignore[attr-defined]  # grpc-stubs lack it
            self._meter.ended(method, code.name, time.monotonic() - began)
