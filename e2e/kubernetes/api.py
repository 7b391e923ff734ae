"""The API server as tests read it: JSON over the Unix socket of ``kubectl proxy``. What a user does is done with kubectl instead."""

from __future__ import annotations

import http.client
import json
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

Object = dict[str, Any]


class ApiError(Exception):
    """The API server refused, or did not answer (``status`` 0)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Api:
    """Paths are the API's own, such as ``/api/v1/namespaces/default/pods/name``."""

    socket: Path
    timeout: float = 30

    def get(self, path: str) -> Object:
        """One object or list."""
        document: Object = json.loads(self.text(path))
        return document

    def items(self, path: str) -> list[Object]:
        """The objects of a list."""
        found: list[Object] = self.get(path).get("items") or []
        return found

    def find(self, path: str) -> Object | None:
        """One object, or nothing where there is none."""
        try:
            return self.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def text(self, path: str) -> str:
        """What the path answers, such as a log."""
        return self._call("GET", path)

    def create(self, path: str, document: Object) -> Object:
        """POST ``document`` to a list's path."""
        made: Object = json.loads(self._call("POST", path, document))
        return made

    def delete(self, path: str, *, grace: int | None = None) -> None:
        """Delete an object; one that is not there is no error."""
        options = {} if grace is None else {"gracePeriodSeconds": grace}
        try:
            self._call("DELETE", path, options)
        except ApiError as error:
            if error.status != 404:
                raise

    def _call(self, method: str, path: str, document: Object | None = None) -> str:
        connection = _UnixConnection(self.socket, self.timeout)
        try:
            body = None if document is None else json.dumps(document)
            connection.request(method, path, body, {"Content-Type": "application/json", "Accept": "application/json, */*"})
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise ApiError(0, f"{method} {path}: {error}") from error
        finally:
            connection.close()
        if answer.status >= 400:
            raise ApiError(answer.status, text)
        return text


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
