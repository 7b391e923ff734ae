"""The manifests of deploy/examples as values, for the tests that only read them and for those that apply them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "examples"
CRDS = Path(__file__).resolve().parent / "crds"
_POD_FIELDS = ("affinity", "containers", "nodeSelector", "tolerations", "volumes")

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Example:
    """One file: its text and the objects in it."""

    name: str
    text: str
    documents: tuple[Document, ...]

    def with_text(self, replaced: Mapping[str, str]) -> Example:
        """The same example with other images or references; every key must occur.

        Raises:
            KeyError: the example has no such text.
        """
        text = self.text
        for old, new in replaced.items():
            if old not in text:
                raise KeyError(old)
            text = text.replace(old, new)
        return parse(self.name, text)


def parse(name: str, text: str) -> Example:
    """An example from its text."""
    return Example(name, text, tuple(document for document in yaml.safe_load_all(text) if document is not None))


def examples() -> tuple[Example, ...]:
    """All of them, by name."""
    return tuple(parse(path.stem, path.read_text()) for path in sorted(FOLDER.glob("*.yaml")))


def example(name: str) -> Example:
    """The one of this name."""
    return parse(name, (FOLDER / f"{name}.yaml").read_text())


def pod_specs(node: object) -> Iterator[Document]:
    """Every pod specification below a node: whatever has containers."""
    for found in mappings(node):
        if isinstance(found.get("containers"), list):
            yield {key: found[key] for key in found if key in _POD_FIELDS} if "supportedModelFormats" in found else found


def sources(node: object, driver: str) -> Iterator[Document]:
    """Every CSI source below a node that names the driver: inline volumes and persistent volumes."""
    return (found["csi"] for found in mappings(node) if isinstance(found.get("csi"), dict) and found["csi"].get("driver") == driver)


def mappings(node: object) -> Iterator[Document]:
    """A node and everything below it that is a mapping."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from mappings(value)
    elif isinstance(node, list):
        for item in node:
            yield from mappings(item)


def schemas() -> dict[tuple[str, str], Document]:
    """The reduced schemas of the operators' kinds, by apiVersion and kind."""
    found: dict[tuple[str, str], Document] = {}
    for path in sorted(CRDS.glob("*.yaml")):
        for definition in yaml.safe_load_all(path.read_text()):
            spec = definition["spec"]
            for version in spec["versions"]:
                key = (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
                found[key] = version["schema"]["openAPIV3Schema"]
    return found
