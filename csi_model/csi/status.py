"""What our errors are called in gRPC: one table, and the interceptor that applies it to every call.

kubelet takes CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE, RESOURCE_EXHAUSTED and ABORTED for "perhaps still running" and comes back,
with an unpublish if the pod has gone; every other code is final for it. The CSI specification wants status details to stay empty.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

import grpc
import structlog

from csi_model.csi.interceptor import CallInterceptor
from csi_model.errors import (
    BusyError,
    ConflictError,
    CorruptContentError,
    CsiModelError,
    DeniedError,
    InvalidRequestError,
    MisconfiguredError,
    MountError,
    NoSpaceError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from typing import NoReturn

    from csi_model.csi.interceptor import Behaviour

log = structlog.get_logger(__name__)

CODES: dict[type[CsiModelError], grpc.StatusCode] = {
    InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    MisconfiguredError: grpc.StatusCode.FAILED_PRECONDITION,
    NotFoundError: grpc.StatusCode.NOT_FOUND,
    ConflictError: grpc.StatusCode.ALREADY_EXISTS,
    UnsupportedError: grpc.StatusCode.FAILED_PRECONDITION,
    UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    DeniedError: grpc.StatusCode.PERMISSION_DENIED,
    BusyError: grpc.StatusCode.ABORTED,
    NoSpaceError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    UnavailableError: grpc.StatusCode.UNAVAILABLE,
    CorruptContentError: grpc.StatusCode.DATA_LOSS,
    MountError: grpc.StatusCode.INTERNAL,
}

# gRPC gives a client 8 KiB for all trailers and percent-encodes the message; past that the client sees RESOURCE_EXHAUSTED instead.
_MAX_MESSAGE = 2000


def code_of(error: BaseException) -> grpc.StatusCode:
    """The code for an error: that of the nearest class in its MRO, INTERNAL when there is none."""
    for kind in type(error).__mro__:
        if kind in CODES:
            return CODES[kind]
    return grpc.StatusCode.INTERNAL


def message_of(error: CsiModelError) -> str:
    """The error's text, cut to what fits into gRPC's trailers."""
    text = str(error) or type(error).__name__
    encoded = text.encode("utf-8", "replace")
    return text if len(encoded) <= _MAX_MESSAGE else encoded[:_MAX_MESSAGE].decode("utf-8", "ignore") + "…"


class StatusInterceptor(CallInterceptor):
    """Ends every call that raised with the error's code and text; a call that hit a bug of ours gets a fixed text.

    The traceback of a bug is formatted here, without the values of variables: a log renderer that shows those would show secrets.
    """

    def around(self, method: str, behaviour: Behaviour, request: Any, context: grpc.ServicerContext) -> Any:
        """Answer, or end the call with a code."""
        try:
            return behaviour(request, context)
        except CsiModelError as error:
            _end(context, code_of(error), message_of(error))
        except NotImplementedError:
            # Raised by the generated base class of a service for every call that we do not define.
            _end(context, grpc.StatusCode.UNIMPLEMENTED, f"csi-model does not offer {method}")
        except Exception as error:  # noqa: BLE001 - the edge: whatever it is, the caller gets a code and the log a traceback
            frames = "".join(traceback.format_exception(error))
            log.error("call hit a bug", method=method, traceback=frames)  # noqa: TRY400 - see above
            _end(context, grpc.StatusCode.INTERNAL, f"{method} failed inside csi-model; the driver's log has the details")


def _end(context: grpc.ServicerContext, code: grpc.StatusCode, message: str) -> NoReturn:
    context.abort(code, message)
