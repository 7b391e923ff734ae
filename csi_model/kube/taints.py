"""Taints of a node, and the patch that removes ours: values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Taint:
    """A taint as far as it is told apart from others: a node has each key once for each effect."""

    key: str
    effect: str


def startup_taint(driver: str) -> str:
    """The key of the taint with which a node says that volumes of ``driver`` cannot be mounted on it yet."""
    return f"{driver}/agent-not-ready"


def removal(taints: Sequence[Taint], key: str) -> list[dict[str, str]]:
    """A JSON patch that takes every taint with this key away from a node that has ``taints``; empty when it has none.

    Each is removed by its place in the list, after a test that it is still there: when somebody has changed the list meanwhile, the
    patch fails as a whole and no other taint is lost. The last comes first, so that places hold.
    """
    patch: list[dict[str, str]] = []
    for place, taint in reversed(list(enumerate(taints))):
        if taint.key == key:
            path = f"/spec/taints/{place}"
            patch += [
                {"op": "test", "path": f"{path}/key", "value": taint.key},
                {"op": "test", "path": f"{path}/effect", "value": taint.effect},
                {"op": "remove", "path": path},
            ]
    return patch
