"""Fetching one bearer token, by the POST form where there is a secret to send, else or after it by GET."""

from __future__ import annotations

import base64
import json
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from csi_model.errors import UnauthenticatedError, UnavailableError
from csi_model.registry.problems import problem
from csi_model.registry.redirects import REDIRECTS, send_following
from csi_model.registry.transport import Request

if TYPE_CHECKING:
    from csi_model.registry.cancellation import Cancellation
    from csi_model.registry.credentials import Credential
    from csi_model.registry.origin import Origin, Url
    from csi_model.registry.response import Response
    from csi_model.registry.transport import Transport

_MAX_REPLY = 1 << 20
_MAX_TOKEN = 48 * 1024
_DEFAULT_LIFETIME = 60.0
_NO_POST = frozenset({400, 401, 404, 405})
"""What token servers that know only GET answer to the form; containerd takes the same for a reason to fall back."""


class RefusedError(UnauthenticatedError):
    """The token server does not accept this credential, or none."""


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token and when, on the monotonic clock, to stop using it."""

    value: str = field(repr=False)
    deadline: float

    @property
    def is_expired(self) -> bool:
        """Whether it has run out, or is about to."""
        return time.monotonic() >= self.deadline


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """What is asked of a token server, and for which registry."""

    registry: Origin
    realm: Url
    service: str
    scope: str
    credential: Credential | None


def fetch_token(transport: Transport, request: TokenRequest, cancellation: Cancellation) -> Token:
    """Ask for a token.

    Raises:
        RefusedError: 401 or 403.
        UnavailableError: any other failure; a TransientError where another attempt may help.
        DeniedError: an address that is not to be connected to, or a redirect that is not followed.
    """

    def send(form: Request) -> Response:
        return send_following(transport, form, cancellation, registry=request.registry, what="a token")

    credential = request.credential
    started = time.monotonic()
    if credential:
        response = send(_post(request, credential))
        # A redirect that comes back would have lost the form; a GET has the credential in its header, and is redirected with it.
        if response.status in _NO_POST | REDIRECTS and credential.username:
            response.discard()
            response = send(_get(request, credential))
    else:
        response = send(_get(request, None))
    return _read(response, started)


def _post(request: TokenRequest, credential: Credential) -> Request:
    form = {"service": request.service, "client_id": "csi-model", "scope": request.scope}
    if credential.identity_token:
        form |= {"grant_type": "refresh_token", "refresh_token": credential.identity_token}
    else:
        form |= {"grant_type": "password", "username": credential.username, "password": credential.password}
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return Request("POST", request.realm, headers, urllib.parse.urlencode(form).encode())


def _get(request: TokenRequest, credential: Credential | None) -> Request:
    query = [("service", request.service)] if request.service else []
    query += [("scope", scope) for scope in request.scope.split(" ") if scope]
    mark = "&" if "?" in request.realm.target else "?"
    url = type(request.realm)(request.realm.origin, f"{request.realm.target}{mark}{urllib.parse.urlencode(query)}")
    headers = {}
    if credential:
        login = f"{credential.username}:{credential.password}".encode()
        headers["Authorization"] = "Basic " + base64.b64encode(login).decode()
    return Request("GET", url, headers)


def _read(response: Response, started: float) -> Token:
    server = response.origin.netloc
    if response.status in {401, 403}:
        response.discard()
        msg = f"the token server {server} refused with {response.status}"
        raise RefusedError(msg)
    if response.status != 200:
        error = problem(response, "a token", "not shown")
        if isinstance(error, UnavailableError):
            raise error
        msg = f"the token server failed: {error}"
        raise UnavailableError(msg) from error
    try:
        reply = json.loads(response.read(_MAX_REPLY))
        value = reply.get("token") or reply.get("access_token")
        lifetime = float(reply.get("expires_in") or _DEFAULT_LIFETIME)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        msg = f"the token server {server} sent a reply that cannot be read"
        raise UnavailableError(msg) from error
    finally:
        response.release()
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_TOKEN or not value.isascii() or not value.isprintable():
        msg = f"the token server {server} sent no usable token"
        raise UnavailableError(msg)
    # Stop a little early, so that it does not run out on its way.
    return Token(value, started + max(lifetime - min(10.0, lifetime / 10), 1.0))
