"""Following redirects: one set of rules for blobs, manifests and tokens.

Authorization goes to the origin that was asked first and nowhere else; once a redirect has left it, it is not sent again, even when
another host sends us back.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from csi_model.errors import UnavailableError
from csi_model.registry.origin import Url, is_loopback

if TYPE_CHECKING:
    from csi_model.registry.cancellation import Cancellation
    from csi_model.registry.origin import Origin
    from csi_model.registry.response import Response
    from csi_model.registry.transport import Request, Transport

REDIRECTS = frozenset({301, 302, 303, 307, 308})
_KEEP_BODY = frozenset({307, 308})
_MAX_REDIRECTS = 5


def send_following(transport: Transport, request: Request, cancellation: Cancellation, *, registry: Origin, what: str) -> Response:
    """The answer at the end of the redirects; ``what`` names in messages what is asked for, and ``registry`` is the one that a person named.

    A body may hold a password: it goes along only within its origin, and only where the status says so. A redirect that would lose it is
    itself the answer.

    Raises:
        DeniedError: a redirect to where we do not go: see ``Url.parse``, and ``dial`` for addresses of this machine.
        UnavailableError: too many of them; others as for ``Transport.send``.
    """
    # A registry that a person named may be anywhere; what it points to may be on this machine only if it is itself.
    guarded = not is_loopback(registry.host)
    first, strayed = request.url.origin, False
    for _ in range(_MAX_REDIRECTS + 1):
        request = dataclasses.replace(request, public_only=guarded and request.url.origin != registry)
        response = transport.send(request, cancellation)
        response.strayed = strayed
        location = response.header("Location")
        if response.status not in REDIRECTS or not location:
            return response
        response.discard()
        url = Url.parse(location, base=request.url, what="a redirect", settings=transport.settings)
        strayed = strayed or url.origin != first  # and it stays so, even when another host sends us back
        if request.body is not None and (strayed or response.status not in _KEEP_BODY):
            return response
        headers = {name: value for name, value in request.headers.items() if not (strayed and name == "Authorization")}
        request = dataclasses.replace(request, url=url, headers=headers)
    msg = f"{first.netloc} redirects more than {_MAX_REDIRECTS} times for {what}"
    raise UnavailableError(msg)
