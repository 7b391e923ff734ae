"""Rendered objects, and the ways to look at them that several tests share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from deploy.chart import find_helm, template
from deploy.values import CHART

if TYPE_CHECKING:
    from collections.abc import Iterator

Object = dict[str, Any]

needs_helm = pytest.mark.skipif(find_helm() is None, reason="no helm on PATH, and none in the cache, where `.ci/setup e2e` builds it")
EVERY_SWITCH = CHART / "ci" / "every-switch-values.yaml"
SECOND_DRIVER = CHART / "ci" / "second-driver-values.yaml"


@dataclass(frozen=True, slots=True)
class Objects:
    """Objects of one rendering, in its order."""

    items: tuple[Object, ...]

    @classmethod
    def parse(cls, text: str) -> Objects:
        return cls(tuple(item for item in yaml.safe_load_all(text) if item))

    @classmethod
    def rendered(cls, *options: str, release: str = "csi-model", namespace: str = "csi-model") -> Objects:
        return cls.parse(template(*options, release=release, namespace=namespace))

    def one(self, kind: str, name: str | None = None) -> Object:
        """The only object of a kind, or of a kind and a name."""
        (found,) = (item for item in self.of(kind) if name in {None, item["metadata"]["name"]})
        return found

    def of(self, kind: str) -> Iterator[Object]:
        return (item for item in self.items if item["kind"] == kind)

    def keys(self) -> set[tuple[str, str, str]]:
        """Kind, namespace and name of every object."""
        return {(item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]) for item in self.items}


def pod(item: Object) -> Object:
    """The pod that a workload makes."""
    spec: Object = item["spec"]["template"]["spec"]
    return spec


def container(item: Object, name: str) -> Object:
    """One of its containers."""
    found: Object
    (found,) = (one for one in pod(item)["containers"] if one["name"] == name)
    return found
