"""One log line per call: what was asked, for whom, how it ended and how long it took.

What was asked and for whom is also on every other line that the call's thread writes meanwhile.
Fields are listed, never whole messages: what is not named here, secrets and service-account tokens for two, cannot be logged.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from structlog.contextvars import bound_contextvars

from csi_model.csi.context import shown_reference, who_asks
from csi_model.csi.interceptor import CallInterceptor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from csi_model.csi.interceptor import Behaviour

log = structlog.get_logger(__name__)

_FIELDS = {"volume_id": "volume_id", "name": "name", "target_path": "target", "volume_path": "target"}
_MAX_VALUE = 256
# Codes that say "come back", or that a caller's own mistake caused: worth a line, not an alarm.
_ALARMING = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS})


class LogInterceptor(CallInterceptor):
    """Logs every call once, when it has ended; stands outside the interceptor that sets the code."""

    def around(self, method: str, behaviour: Behaviour, request: Any, context: grpc.ServicerContext) -> Any:
        """Answer with the call's fields on every line, then write the line of its end."""
        began = time.monotonic()
        told = describe(request)
        with bound_contextvars(**told):
            try:
                return behaviour(request, context)
            finally:
                _write(method, told, context, time.monotonic() - began)


def describe(request: Any) -> dict[str, str]:
    """What may be said of a request: its ids and paths, the pod it is for, and its reference as it parses."""
    told = {name: _cut(value) for field, name in _FIELDS.items() if (value := getattr(request, field, ""))}
    context: Mapping[str, str] = getattr(request, "volume_context", None) or getattr(request, "parameters", None) or {}
    told.update({name: _cut(value) for name, value in who_asks(context).items()})
    if "reference" in context:
        told["reference"] = _cut(shown_reference(context) or "(malformed)")
    return told


def _write(method: str, told: Mapping[str, str], context: grpc.ServicerContext, seconds: float) -> None:
    code: grpc.StatusCode = context.code() or grpc.StatusCode.OK  # type: ignore[attr-defined]  # grpc-stubs lack it
    ended: dict[str, Any] = {"method": method, "code": code.name, "seconds": round(seconds, 3)}
    if code is not grpc.StatusCode.OK:
        ended["error"] = _text(context.details())  # type: ignore[attr-defined]
    if code in _ALARMING:
        log.error("call", **ended, **told)
    elif code is not grpc.StatusCode.OK:
        log.warning("call", **ended, **told)
    elif told:
        log.info("call", **ended, **told)
    else:
        # Probes and capabilities are asked for all the time.
        log.debug("call", **ended)


def _text(details: bytes | str | None) -> str:
    return details.decode("utf-8", "replace") if isinstance(details, bytes) else details or ""


def _cut(value: str) -> str:
    return value if len(value) <= _MAX_VALUE else f"{value[:_MAX_VALUE]}…"
