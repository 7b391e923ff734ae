"""The HTTP server of metrics and probes: small, for callers that are not trusted to be quick or polite.

One thread meets all callers, so that a slow one costs a socket and no thread; each page is made in a thread of its own, so that a scrape
holds up no probe. A caller has five seconds to ask and five to take its answer, one request a connection. It is no place for anything
that needs a body, a query or a secret.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping

log = structlog.get_logger(__name__)

_PATIENCE = 5.0
_MAX_HEAD = 8 << 10
_MOST_CALLERS = 64
"""Callers at once; with one more, the one that has been there for the longest time is sent away."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a page says."""

    body: bytes
    kind: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    accept: str

    @classmethod
    def parse(cls, head: bytes) -> _Request | None:
        """Take a request's head apart; None when it is no HTTP."""
        first, *lines = head.decode("latin-1").split("\r\n")
        parts = first.split(" ")
        if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
            return None
        fields = (line.partition(":") for line in lines)
        accept = [value.strip() for name, _, value in fields if name.lower() == "accept"]
        return cls(parts[0], parts[1].partition("?")[0], ",".join(accept))


if TYPE_CHECKING:
    Page = Callable[[str], Answer]


@contextmanager
def serving(listener: socket.socket, pages: Mapping[str, Page]) -> Iterator[None]:
    """Answer at ``listener``, which is closed at the end, with ``pages`` by their paths; each is given the request's Accept header.

    A page that raises is answered 500 and logged.
    """
    server = _Server(listener, pages)
    thread = threading.Thread(target=lambda: asyncio.run(server.run()), name="metrics", daemon=True)
    thread.start()
    server.started.wait()
    try:
        yield
    finally:
        server.stop()
        thread.join(_PATIENCE)


class _Server:
    def __init__(self, listener: socket.socket, pages: Mapping[str, Page]) -> None:
        self._listener = listener
        self._pages = {path: (page, ThreadPoolExecutor(1, thread_name_prefix=f"page {path}")) for path, page in pages.items()}
        self._callers: dict[asyncio.Task[None], None] = {}  # in the order in which they came
        self.started = threading.Event()

    async def run(self) -> None:
        """Serve until ``stop``."""
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(_complain)
        self._stopping = asyncio.Event()
        server = await asyncio.start_server(self._meet, sock=self._listener, limit=_MAX_HEAD)
        self.started.set()
        await self._stopping.wait()
        server.close()
        for caller in self._callers:
            caller.cancel()
        for _, thread in self._pages.values():
            thread.shutdown(wait=False, cancel_futures=True)

    def stop(self) -> None:
        """End ``run``, from another thread."""
        self._loop.call_soon_threadsafe(self._stopping.set)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hear one caller out, answer, and part."""
        caller = asyncio.current_task()
        assert caller is not None
        if len(self._callers) >= _MOST_CALLERS:
            longest = next(iter(self._callers))
            del self._callers[longest]  # now, for it takes a moment to go, and others may come in that
            longest.cancel()
        self._callers[caller] = None
        try:
            response = await self._respond(reader)
            async with asyncio.timeout(_PATIENCE):
                writer.write(response)
                writer.close()
                await writer.wait_closed()
        except (OSError, asyncio.IncompleteReadError) as error:  # a TimeoutError is an OSError
            log.debug("a caller left or was too slow", reason=str(error) or type(error).__name__)
        finally:
            self._callers.pop(caller, None)
            writer.transport.abort()

    async def _respond(self, reader: asyncio.StreamReader) -> bytes:
        try:
            async with asyncio.timeout(_PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _encode(_plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))
        request = _Request.parse(head)
        if request is None:
            return _encode(_plain(HTTPStatus.BAD_REQUEST))
        if request.method not in {"GET", "HEAD"}:
            return _encode(_plain(HTTPStatus.METHOD_NOT_ALLOWED), "Allow: GET, HEAD")
        answer = await self._answer(request)
        response = _encode(answer)
        return response if request.method == "GET" else response.removesuffix(answer.body)

    async def _answer(self, request: _Request) -> Answer:
        if request.path not in self._pages:
            return _plain(HTTPStatus.NOT_FOUND)
        page, thread = self._pages[request.path]
        try:
            return await self._loop.run_in_executor(thread, page, request.accept)
        except Exception:
            log.exception("page failed", path=request.path)
            return _plain(HTTPStatus.INTERNAL_SERVER_ERROR)


def _complain(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # asyncio's own handler would write lines that are no JSON: when there are no more file descriptors for callers, for one.
    log.error("the server of metrics is in trouble", reason=str(context.get("exception") or context.get("message")))


def _plain(status: HTTPStatus) -> Answer:
    return Answer(f"{status.value} {status.phrase}\n".encode(), status=status)


def _encode(answer: Answer, *fields: str) -> bytes:
    head = [
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
        f"Content-Type: {answer.kind}",
        f"Content-Length: {len(answer.body)}",
        "Connection: close",
        *fields,
    ]
    return "\r\n".join([*head, "", ""]).encode() + answer.body
