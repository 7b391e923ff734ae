"""Which Authorization goes with a request: Basic or a bearer token, from the first credential that the registry accepts.

Tokens are kept per repository and set of credentials, never longer than their source, and their age is taken by the monotonic clock.
Token flows: distribution/distribution, docs/content/spec/auth. A token server may be on another host than the registry (most are), but
an https registry cannot send us to one without TLS, and a plain one only to a plain one that the configuration names too.
"""

from __future__ import annotations

import base64
import contextlib
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from csi_model.errors import UnauthenticatedError
from csi_model.registry.challenge import Challenge, parse_challenges
from csi_model.registry.origin import Url
from csi_model.registry.tokens import RefusedError, Token, TokenRequest, fetch_token

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from csi_model.registry.cancellation import Cancellation
    from csi_model.registry.credentials import Credential
    from csi_model.registry.origin import Origin
    from csi_model.registry.transport import Transport

_LOOK_UP = 0.2
"""Seconds after which a thread that waits for another's token looks whether it has been stopped."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one request was sent with; ``number`` counts credentials and tokens, so that news are told from the refused."""

    header: str | None = field(repr=False)
    number: int


class Authorizer:
    """Safe to use from many threads: one of them fetches a token while the others wait for it."""

    def __init__(self, transport: Transport, registry: Origin, repository: str, credentials: Sequence[Credential]) -> None:
        self._transport = transport
        self._registry = registry
        self._scope = f"repository:{repository}:pull"
        self._credentials: Sequence[Credential | None] = tuple(credentials) or (None,)
        self._lock = threading.RLock()
        self._index = 0
        self._number = 0
        self._header: str | None = None
        self._token: Token | None = None
        self._challenge: Challenge | None = None
        self._accepted = False
        self.authenticated = False
        """Whether the registry has accepted a request that bore a credential, or a token got with one."""

    @property
    def rounds(self) -> int:
        """More attempts than one request can need: every credential twice, and renewals by other threads."""
        return 8 + 2 * len(self._credentials)

    @property
    def tried(self) -> str:
        """The credentials that were sent so far, for messages."""
        if self._challenge is None:
            return "none"
        return ", ".join(c.label for c in self._credentials[: self._index + 1] if c) or "none"

    def attempt(self, cancellation: Cancellation) -> Attempt:
        """What to send now; a token that has run out by the clock is replaced first.

        Raises:
            As ``challenged``.
        """
        with self._turn(cancellation):
            if self._token and self._token.is_expired:
                self._obtain(cancellation)
            return Attempt(self._header, self._number)

    def accepted(self, attempt: Attempt) -> None:
        """The registry let this attempt in."""
        if attempt.number != self._number:
            return  # nor is there a reason to wait for the thread that fetches a newer token
        with self._lock:
            if attempt.number == self._number and attempt.header:
                self._accepted = True
                self.authenticated = self.authenticated or self._credentials[self._index] is not None

    def challenged(self, attempt: Attempt, headers: Sequence[str], cancellation: Cancellation) -> bool:
        """The registry answered 401 to this attempt: prepare the next one, or say that there is none.

        Raises:
            UnauthenticatedError: the token server refused every credential.
            DeniedError: the registry sent us to a place where credentials must not go.
            UnavailableError: the token server is silent or failing.
        """
        with self._turn(cancellation):
            if attempt.number != self._number:
                return True  # another thread has renewed it in the meantime
            challenge = _choose(parse_challenges(headers))
            if challenge is None:
                return False
            self._challenge = challenge
            if attempt.header and not self._accepted and not self._next():
                return False
            self._obtain(cancellation)
            return self._header is not None

    def refused(self, attempt: Attempt, cancellation: Cancellation) -> bool:
        """The registry knows the credential but hides or forbids what was asked for: whether another one is ready to be tried."""
        with self._turn(cancellation):
            if attempt.number != self._number:
                return False
            if not attempt.header or self._accepted or not self._next():
                return False
            self._obtain(cancellation)
            return True

    @contextlib.contextmanager
    def _turn(self, cancellation: Cancellation) -> Iterator[None]:
        """The lock, which is held while a token is fetched; a wait for it ends with the operation."""
        while not self._lock.acquire(timeout=_LOOK_UP):
            cancellation.check()
        try:
            yield
        finally:
            self._lock.release()

    def _next(self) -> bool:
        if self._index + 1 >= len(self._credentials):
            return False
        self._index += 1
        return True

    def _obtain(self, cancellation: Cancellation) -> None:
        """Make the header for the present credential, or for the first one after it that a token server accepts."""
        assert self._challenge is not None
        self._header, self._token, self._accepted = None, None, False
        self._number += 1
        while True:
            credential = self._credentials[self._index]
            if self._challenge.scheme == "bearer":
                try:
                    self._token = self._fetch(credential, cancellation)
                    self._header = f"Bearer {self._token.value}"
                except RefusedError as error:
                    if self._next():
                        continue
                    msg = f"{error}; credentials tried: {self.tried}; check the volume's secret (nodePublishSecretRef) or the registry's credentialsFile"
                    raise UnauthenticatedError(msg) from error
            elif credential and credential.username:
                login = f"{credential.username}:{credential.password}".encode()
                self._header = "Basic " + base64.b64encode(login).decode()
            elif credential and self._next():
                continue
            return

    def _fetch(self, credential: Credential | None, cancellation: Cancellation) -> Token:
        assert self._challenge is not None
        parameters = self._challenge.parameters
        registry = Url(self._registry, "/v2/")
        realm = Url.parse(parameters["realm"], base=registry, what="a token server's address", settings=self._transport.settings)
        request = TokenRequest(self._registry, realm, parameters.get("service", ""), parameters.get("scope") or self._scope, credential)
        return fetch_token(self._transport, request, cancellation)


def _choose(challenges: Sequence[Challenge]) -> Challenge | None:
    """A bearer challenge that can be answered, before Basic."""
    bearer = [c for c in challenges if c.scheme == "bearer" and c.parameters.get("realm")]
    basic = [c for c in challenges if c.scheme == "basic"]
    return next(iter(bearer + basic), None)
