"""A Kubernetes API server in this process, over TLS: events, nodes and CSINodes; it fails on demand.

It knows merge patches and the JSON patches test, remove and replace, as far as our driver sends them.
"""

from __future__ import annotations

import http.server
import json
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import ssl


@dataclass(slots=True)
class Trouble:
    """What goes wrong with requests whose method and path contain ``where``, so many ``times`` or always."""

    where: str = ""
    times: int | None = None
    status: int | None = None
    text: str | None = None
    """Instead of a Status object: a body without a type, as a proxy may send."""
    delay: float = 0.0
    hang_up: bool = False
    after: bool = False
    """Do what is asked first, and only then go wrong."""


@dataclass(slots=True)
class State:
    """What the cluster holds, and what was asked of it."""

    tokens: set[str] = field(default_factory=lambda: {"token-1"})
    events: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    csinodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    troubles: list[Trouble] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)


class FakeApiServer:
    """A context manager; listens on loopback."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self.state = State()
        self.lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.api = self
        self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def add_node(self, name: str, *, taints: list[dict[str, str]] | None = None, drivers: tuple[str, ...] = ()) -> None:
        """A node, and what kubelet has listed in its CSINode object."""
        meta = {"name": name, "resourceVersion": "1"}
        spec = {"taints": taints} if taints is not None else {}
        self.state.nodes[name] = {"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": spec}
        self.list_drivers(name, *drivers)

    def list_drivers(self, node: str, *drivers: str) -> None:
        """What kubelet does when it registers drivers."""
        spec = {"drivers": [{"name": driver, "nodeID": node} for driver in drivers]}
        self.state.csinodes[node] = {"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": node}, "spec": spec}

    def taints(self, node: str) -> list[dict[str, str]]:
        """What stands in the node's spec."""
        with self.lock:
            return list(self.state.nodes[node]["spec"].get("taints", []))

    def events(self) -> list[dict[str, Any]]:
        """All events, in the order in which they were made."""
        with self.lock:
            return [dict(event) for event in self.state.events.values()]

    def reasons(self) -> list[str]:
        """Their reasons."""
        return [event["reason"] for event in self.events()]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    api: FakeApiServer

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are part of the tests."""


class _RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Silence."""

    def _serve(self) -> None:
        api, what = self.server.api, f"{self.command} {self.path}"
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with api.lock:
            api.state.seen.append(what)
            trouble = next((item for item in api.state.troubles if item.where in what and item.times != 0), None)
            if trouble is not None and trouble.times is not None:
                trouble.times -= 1
        if trouble is not None and not trouble.after and self._go_wrong(trouble):
            return
        try:
            with api.lock:
                status, reply = self._act(api.state, json.loads(body) if body else None)
        except _RefusedError as error:
            status, reply = error.status, _status(error.status, str(error))
        if trouble is not None and trouble.after and self._go_wrong(trouble):
            return
        self._answer(status, json.dumps(reply).encode(), "application/json")

    do_GET = do_POST = do_PATCH = _serve  # noqa: N815 - the base class finds them by these names

    def _go_wrong(self, trouble: Trouble) -> bool:
        time.sleep(trouble.delay)
        if trouble.hang_up:
            self.close_connection = True
        elif trouble.text is not None:
            self._answer(trouble.status or 502, trouble.text.encode(), None)
        elif trouble.status is not None:
            self._answer(trouble.status, json.dumps(_status(trouble.status, "as the test wants")).encode(), "application/json")
        else:
            return False
        return True

    def _answer(self, status: int, body: bytes, kind: str | None) -> None:
        self.send_response(status)
        if kind is not None:
            self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _act(self, state: State, body: Any) -> tuple[int, Any]:
        if self.headers.get("Authorization", "").removeprefix("Bearer ") not in state.tokens:
            raise _RefusedError(401, "Unauthorized")
        path = self.path.partition("?")[0].strip("/").split("/")
        match path:
            case ["api", "v1", "namespaces", namespace, "events"] if self.command == "POST":
                return 201, _create(state, namespace, body)
            case ["api", "v1", "namespaces", namespace, "events", name]:
                event = _found(state.events, (namespace, name))
                self._require("application/merge-patch+json")
                event.update(body)
                return 200, event
            case ["api", "v1", "nodes", name]:
                node = _found(state.nodes, name)
                if self.command == "PATCH":
                    self._require("application/json-patch+json")
                    node["spec"] = _patched(node, body)["spec"]
                return 200, node
            case ["apis", "storage.k8s.io", "v1", "csinodes", name]:
                return 200, _found(state.csinodes, name)
        raise _RefusedError(404, f"no such path: {self.path}")

    def _require(self, kind: str) -> None:
        if self.command != "PATCH" or self.headers["Content-Type"] != kind:
            raise _RefusedError(415, f"expected a patch of type {kind}")


def _create(state: State, namespace: str, event: dict[str, Any]) -> dict[str, Any]:
    name = event["metadata"]["name"]
    about = event["involvedObject"].get("namespace") or "default"
    if event["metadata"]["namespace"] != namespace or about != namespace:
        raise _RefusedError(422, "involvedObject.namespace does not match event.namespace")
    if (namespace, name) in state.events:
        raise _RefusedError(409, f'events "{name}" already exists')
    state.events[namespace, name] = event
    return event


def _found(objects: dict[Any, dict[str, Any]], key: Any) -> dict[str, Any]:
    if key not in objects:
        raise _RefusedError(404, f"{key} not found")
    return objects[key]


def _patched(document: dict[str, Any], patch: list[dict[str, Any]]) -> dict[str, Any]:
    changed: dict[str, Any] = json.loads(json.dumps(document))
    for change in patch:
        *parents, last = change["path"].strip("/").split("/")
        place: Any = changed
        try:
            for part in parents:
                place = place[int(part)] if isinstance(place, list) else place[part]
            key = int(last) if isinstance(place, list) else last
            if change["op"] == "test" and place[key] != change["value"]:
                raise _RefusedError(422, "the server rejected our request due to an error in our request")
            if change["op"] == "remove":
                del place[key]
        except (KeyError, IndexError) as error:
            raise _RefusedError(422, "the server rejected our request due to an error in our request") from error
    return changed


def _status(code: int, message: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": code, "message": message}
