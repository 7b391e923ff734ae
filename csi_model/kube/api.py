"""The few calls of the Kubernetes API that we make, with short time-outs and our own errors; lightkube is known here only."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import httpx2
import msgspec
from lightkube import Client, KubeConfig
from lightkube.core.exceptions import ConfigError
from lightkube.core.resource import ApiInfo, GlobalResource, ResourceDef
from lightkube.models.core_v1 import EventSource, ObjectReference
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Event, Node
from lightkube.types import PatchType

from csi_model.errors import (
    ConflictError,
    DeniedError,
    InvalidRequestError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
)
from csi_model.kube.taints import Taint

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from csi_model.errors import CsiModelError
    from csi_model.kube.ledger import Post

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_CONNECT_TIMEOUT = 3.0
_TIMEOUT = 5.0
_CLUSTER_NAMESPACE = "default"
"""Where events about objects without a namespace live."""
_KINDS: dict[int, type[CsiModelError]] = {
    401: UnauthenticatedError,
    403: DeniedError,
    404: NotFoundError,
    409: ConflictError,
    # A patch whose test fails, too.
    422: InvalidRequestError,
}


class _Driver(msgspec.Struct):
    name: str


class _Listing(msgspec.Struct):
    drivers: list[_Driver] | None = None


class _CSINode(GlobalResource, msgspec.Struct):
    """What is read of a CSINode. An empty list is null on the wire when Go's is nil, and lightkube's own model takes that for an error."""

    spec: _Listing | None = None

    _api_info = ApiInfo(ResourceDef("storage.k8s.io", "v1", "CSINode"), plural="csinodes", verbs=["get"])


class Cluster(Protocol):
    """The API server. Safe to use from many threads; each call ends within seconds.

    Raises:
        UnavailableError: it is silent or overloaded.
        UnauthenticatedError, DeniedError: it does not let us.
        NotFoundError, ConflictError, InvalidRequestError: the object is not there, is there already, or is not as was thought.
    """

    def write(self, post: Post) -> None:
        """Make the event, or update it."""

    def taints(self, node: str) -> list[Taint]:
        """The node's taints in their order."""

    def patch_node(self, node: str, patch: Sequence[dict[str, str]]) -> None:
        """Apply a JSON patch."""

    def has_driver(self, node: str, driver: str) -> bool:
        """Whether kubelet has listed the driver in the node's CSINode object."""


class ApiServer:
    """The API server of the cluster that this process is a pod of."""

    def __init__(self, client: Client, *, component: str, node: str) -> None:
        """``component`` and ``node`` are what events give as their source."""
        self._client = client
        self._source = EventSource(component=component, host=node)

    @classmethod
    def of_pod(cls, *, component: str, node: str, account: Path = SERVICE_ACCOUNT) -> ApiServer:
        """Use the pod's service account; its token is read again when the API server no longer takes it.

        Raises:
            InvalidRequestError: this process has no service account.
        """
        try:
            config = KubeConfig.from_service_account(account)
            # A proxy that the environment names is for registries: the API server is inside the cluster.
            client = Client(config, timeout=httpx2.Timeout(_TIMEOUT, connect=_CONNECT_TIMEOUT), trust_env=False)
        except (ConfigError, KeyError, OSError) as error:
            msg = f"--kubernetes needs the service account that a pod has, and it cannot be read ({error}); set automountServiceAccountToken: true"
            raise InvalidRequestError(msg) from error
        return cls(client, component=component, node=node)

    def write(self, post: Post) -> None:
        """See the protocol."""
        about = post.note.about
        namespace = about.namespace or _CLUSTER_NAMESPACE
        with _translated(f"write the event {post.note.reason} of {about.kind} {about.name}"):
            if post.exists:
                changes = {"count": post.count, "lastTimestamp": _time(post.last).isoformat(), "message": post.note.message}
                self._client.patch(Event, post.name, changes, namespace=namespace, patch_type=PatchType.MERGE)
            else:
                self._client.create(self._event(post, namespace))

    def taints(self, node: str) -> list[Taint]:
        """See the protocol."""
        with _translated(f"read Node {node}"):
            spec = self._client.get(Node, node).spec
            return [Taint(taint.key, taint.effect) for taint in (spec.taints if spec else None) or ()]

    def patch_node(self, node: str, patch: Sequence[dict[str, str]]) -> None:
        """See the protocol."""
        with _translated(f"change Node {node}"):
            self._client.patch(Node, node, list(patch), patch_type=PatchType.JSON)

    def has_driver(self, node: str, driver: str) -> bool:
        """See the protocol."""
        with _translated(f"read CSINode {node}"):
            spec = self._client.get(_CSINode, node).spec
            return any(listed.name == driver for listed in (spec.drivers if spec else None) or ())

    def close(self) -> None:
        """Close idle connections."""
        self._client.close()

    def _event(self, post: Post, namespace: str) -> Event:
        """An event of core/v1: what kubelet writes, and what ``kubectl describe`` shows with count, age and source."""
        note, about = post.note, post.note.about
        return Event(
            metadata=ObjectMeta(name=post.name, namespace=namespace),
            involvedObject=ObjectReference(
                apiVersion="v1", kind=about.kind, name=about.name, namespace=about.namespace or None, uid=about.uid
            ),
            type=note.kind.value,
            reason=note.reason,
            message=note.message,
            count=post.count,
            firstTimestamp=_time(post.first),
            lastTimestamp=_time(post.last),
            source=self._source,
            reportingComponent=self._source.component,
            reportingInstance=self._source.host,
        )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    try:
        yield
    except httpx2.HTTPStatusError as error:
        status = error.response.status_code
        kind = _KINDS.get(status, UnavailableError)
        hint = "; give the driver's service account the chart's permissions" if kind is DeniedError else ""
        msg = f"cannot {doing}: the API server answered {status} ({str(error)[:300]}){hint}"
        raise kind(msg) from error
    except (httpx2.HTTPError, OSError, msgspec.MsgspecError, ValueError, LookupError) as error:
        # LookupError: lightkube on an error without a Content-Type, as a proxy may send it.
        msg = f"cannot {doing}: the API server cannot be used ({type(error).__name__}: {str(error)[:200]})"
        raise UnavailableError(msg) from error
    except ConfigError as error:
        msg = f"cannot {doing}: {error}"
        raise UnauthenticatedError(msg) from error
