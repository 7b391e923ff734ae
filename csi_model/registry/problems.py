"""Answers that are no success, as our errors.

What a registry says goes into a message only after it is cut to one short printable line: it is a stranger's text, and ends up in
pod events and terminals.
"""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING

from csi_model.errors import CsiModelError, InvalidRequestError, NotFoundError, RegistryDeniedError, UnauthenticatedError, UnavailableError
from csi_model.registry.retry import TransientError, parse_retry_after

if TYPE_CHECKING:
    from csi_model.registry.response import Response

TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_MAX_BODY = 16 * 1024
_MAX_TEXT = 200


def problem(response: Response, what: str, tried: str) -> CsiModelError:
    """The error for a status of 400 or more, or one that was not expected; consumes the response.

    ``what`` was asked for; ``tried`` names the credentials that went with it.
    """
    status = response.status
    after = parse_retry_after(response.header("Retry-After"), dt.datetime.now(dt.UTC))
    said = _what_it_said(response)
    where = f"{response.origin.netloc} answered {status} for {what}{said}"
    if status in TRANSIENT:
        return TransientError(where, after=after)
    if status == 401:
        return UnauthenticatedError(
            f"{where}; credentials tried: {tried}; check the volume's secret (nodePublishSecretRef) or the registry's credentialsFile"
        )
    if status == 403:
        return RegistryDeniedError(f"{where}; credentials tried: {tried}; they need permission to pull")
    if status in {404, 410}:
        return NotFoundError(
            f"{what} does not exist on {response.origin.netloc}, or is not visible (credentials tried: {tried}){said}; check the reference"
        )
    if status in {400, 414, 431}:
        return InvalidRequestError(where)
    return UnavailableError(where)


def one_line(text: str, limit: int = _MAX_TEXT) -> str:
    """A stranger's text on one printable line of at most ``limit`` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * limit]).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _what_it_said(response: Response) -> str:
    try:
        body = response.read(_MAX_BODY)
    except UnavailableError:
        body = b""
    finally:
        response.release()
    try:
        first = json.loads(body)["errors"][0]
        said = f"{first['code']}: {first.get('message') or ''}".rstrip(": ")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""
    return f" ({one_line(said)})"
