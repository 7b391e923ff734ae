"""Work that surrounds every call: the shape that our interceptors share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from collections.abc import Callable

    Behaviour = Callable[[Any, grpc.ServicerContext], Any]
    Handler = grpc.RpcMethodHandler[Any, Any] | None
    # Generic for the type checker only.
    Interceptor = grpc.ServerInterceptor[Any, Any]
else:
    Interceptor = grpc.ServerInterceptor


class CallInterceptor(Interceptor):
    """Puts ``around`` in place of the handler of each call; a method that nobody serves stays unserved.

    All calls of CSI and of registration are unary.
    """

    def around(self, method: str, behaviour: Behaviour, request: Any, context: grpc.ServicerContext) -> Any:
        """Answer the call by ``behaviour(request, context)``, with whatever belongs before and after it; ``method`` has no slashes."""
        raise NotImplementedError

    def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Handler], handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        """The handler with ``around`` about it."""
        handler = continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler
        behaviour = handler.unary_unary
        method = handler_call_details.method.rpartition("/")[2]
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: self.around(method, behaviour, request, context),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
