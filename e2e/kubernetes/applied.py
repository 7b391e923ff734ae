"""Examples applied for a while, and what of their volumes is on the node."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from e2e.kubernetes.node import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.kubernetes.examples import Example
    from e2e.kubernetes.node import Node


@contextmanager
def applied(node: Node, given: Example) -> Iterator[None]:
    """The example's objects for a while; afterwards no volume of theirs is mounted."""
    node.kubectl("apply", "--validate=strict", "--filename", "-", text=given.text)
    try:
        yield
    finally:
        node.kubectl("delete", "--ignore-not-found", "--timeout=60s", "--filename", "-", text=given.text)
        until("no volume is mounted", lambda: not volumes(node))


def volumes(node: Node) -> list[str]:
    """Where volumes of CSI drivers are mounted for pods."""
    return [path for path in node.mounts("/var/lib/kubelet/pods") if "/kubernetes.io~csi/" in path]
