"""One repository of a registry: authorised requests that follow redirects and are retried."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from csi_model.errors import UnavailableError
from csi_model.registry.auth import Authorizer
from csi_model.registry.origin import Origin, Url
from csi_model.registry.problems import problem
from csi_model.registry.redirects import send_following
from csi_model.registry.retry import Retry, TransientError
from csi_model.registry.transport import Request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from csi_model.oci.reference import Reference
    from csi_model.registry.auth import Attempt
    from csi_model.registry.cancellation import Cancellation
    from csi_model.registry.credentials import Credential
    from csi_model.registry.response import Response
    from csi_model.registry.transport import Transport

_SIGNATURE_REFUSED = frozenset({400, 401, 403, 404, 410})
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a repository; ``what`` names in messages what it asks for, and ``expected`` statuses come back as answers."""

    method: str
    path: str
    what: str
    headers: Mapping[str, str] = field(default_factory=lambda: _NO_HEADERS)
    expected: frozenset[int] = frozenset({200})


class RepositoryClient:
    """Safe to use from many threads."""

    def __init__(self, transport: Transport, reference: Reference, credentials: Sequence[Credential] = ()) -> None:
        self.transport = transport
        self.settings = transport.settings
        self.origin = Origin.of_registry(reference.host, self.settings)
        self.repository = reference.repository
        self._authorizer = Authorizer(transport, self.origin, self.repository, credentials)

    @property
    def authenticated(self) -> bool:
        """Whether a credential was needed and accepted."""
        return self._authorizer.authenticated

    def call(self, call: Call, retry: Retry, cancellation: Cancellation) -> Response:
        """Make the call, again and again while ``retry`` allows it; the caller releases the response.

        Raises:
            NotFoundError, UnauthenticatedError, DeniedError, InvalidRequestError: as the registry said.
            UnavailableError: silent or failing after the retries, or cancelled.
        """
        while True:
            try:
                response = self._authorised(call, cancellation)
                if response.status in call.expected:
                    return response
                raise problem(response, call.what, self._authorizer.tried)
            except TransientError as error:
                retry.again(error)

    def read(self, call: Call, limit: int, cancellation: Cancellation) -> tuple[Response, bytes]:
        """Make the call and read at most ``limit`` bytes of the answer's body, which is enough to see that it is longer.

        The response comes back released, for its status and headers.

        Raises:
            As ``call``.
        """
        retry = Retry(self.settings, cancellation)
        while True:
            response = self.call(call, retry, cancellation)
            try:
                return response, response.read_up_to(limit)
            except TransientError as error:
                cancellation.check()
                retry.again(error)
            finally:
                response.release()

    def _authorised(self, call: Call, cancellation: Cancellation) -> Response:
        """One answer, after as many attempts as there are ways to authorise it."""
        signed_again = False
        for _ in range(self._authorizer.rounds):
            attempt = self._authorizer.attempt(cancellation)
            headers = {**call.headers, "Authorization": attempt.header} if attempt.header else call.headers
            request = Request(call.method, Url(self.origin, call.path), headers)
            response = send_following(self.transport, request, cancellation, registry=self.origin, what=call.what)
            if response.origin != self.origin:
                self._authorizer.accepted(attempt)
                # Storage behind a redirect takes signed URLs that run out: ask the registry for a new one, once.
                if signed_again or response.status not in _SIGNATURE_REFUSED:
                    return response
                signed_again = True
                response.discard()
            elif response.status in {401, 403, 404}:
                if not self._another_attempt(response, attempt, cancellation):
                    return response
                response.discard()
            else:
                if response.status < 400:
                    self._authorizer.accepted(attempt)
                return response
        msg = f"{self.origin.netloc} accepts and refuses the same credentials for {call.what} by turns"
        raise UnavailableError(msg)

    def _another_attempt(self, response: Response, attempt: Attempt, cancellation: Cancellation) -> bool:
        try:
            if response.status == 401:
                return self._authorizer.challenged(attempt, response.headers("WWW-Authenticate"), cancellation)
            return self._authorizer.refused(attempt, cancellation)
        except BaseException:
            response.release()
            raise
