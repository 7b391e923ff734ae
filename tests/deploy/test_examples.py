"""The examples are what this driver accepts and what Kubernetes' and the operators' schemas allow."""

from __future__ import annotations

import copy
import json
import re
import subprocess
from functools import cache
from typing import TYPE_CHECKING, Any

import jsonschema
import kubernetes_validate
import pytest

from csi_model.config.model import Config
from csi_model.csi.context import VolumeContext, parse_request
from e2e.kubernetes.examples import FOLDER, ROOT, Document, Example, examples, mappings, parse, pod_specs, schemas, sources

if TYPE_CHECKING:
    from collections.abc import Iterator

DRIVER = Config().csi.driver_name
PAGES = ROOT / "docs" / "examples"
VERSIONS = ("1.30", "1.33", "1.36", "1.37")
INLINE_FIELDS = {"driver", "readOnly", "volumeAttributes", "nodePublishSecretRef"}
PERSISTENT_FIELDS = INLINE_FIELDS | {"volumeHandle"}
OPERATORS = schemas()
CHARTS = {("monitoring.coreos.com/v1", "PodMonitor")}
"""Kinds that the chart has behind a switch, and no example."""

every_example = pytest.mark.parametrize("given", [pytest.param(found, id=found.name) for found in examples()])


def _key(document: Document) -> tuple[str, str]:
    return document["apiVersion"], document["kind"]


def _closed(node: Any) -> Any:
    """A schema that refuses unknown fields, as an API server with strict field validation does."""
    if isinstance(node, list):
        return [_closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    closed = {key: _closed(value) for key, value in node.items()}
    if closed.get("x-kubernetes-int-or-string"):
        closed["type"] = ["integer", "string"]
    if (
        isinstance(closed.get("properties"), dict)
        and closed.get("type") == "object"
        and not closed.get("x-kubernetes-preserve-unknown-fields")
    ):
        closed.setdefault("additionalProperties", False)
    return closed


@cache
def _validator(api_version: str, kind: str) -> jsonschema.Draft202012Validator:
    schema = _closed(OPERATORS[api_version, kind])
    text = {"type": "string"}
    texts = {"type": "object", "additionalProperties": text}
    schema["properties"]["metadata"] = {
        "type": "object",
        "required": ["name"],
        "additionalProperties": False,
        "properties": {"name": text, "namespace": text, "labels": texts, "annotations": texts},
    }
    return jsonschema.Draft202012Validator(schema)


def _attributes(document: Document) -> Iterator[dict[str, str]]:
    yield from (source["volumeAttributes"] for source in sources(document, DRIVER))
    if document["kind"] == "StorageClass":
        yield document["parameters"]


@every_example
def test_an_example_is_a_list_of_named_objects(given: Example) -> None:
    """Each file holds objects with kind, version and a name that no other object of its kind has."""
    names = [(*_key(document), document["metadata"].get("namespace"), document["metadata"]["name"]) for document in given.documents]
    assert names
    assert len(set(names)) == len(names)


def test_no_two_examples_claim_a_cluster_wide_name() -> None:
    """All examples can be applied side by side as far as persistent volumes and classes go."""
    wide = [
        (document["kind"], document["metadata"]["name"])
        for found in examples()
        for document in found.documents
        if document["kind"] in {"PersistentVolume", "StorageClass", "ClusterQueue", "ResourceFlavor"}
    ]
    assert len(wide) >= 4
    assert len(set(wide)) == len(wide)


@every_example
def test_the_driver_accepts_the_attributes(given: Example) -> None:
    """Every example asks this driver for a model, in attributes that its own parser accepts from a pod."""
    asked = [attributes for document in given.documents for attributes in _attributes(document)]
    assert asked
    for attributes in asked:
        request = parse_request(VolumeContext.parse(attributes).attributes, layouts=())
        assert str(request.reference).startswith("registry.example/llm/")


@every_example
def test_every_volume_says_that_it_is_read_only(given: Example) -> None:
    """Inline volumes, persistent volumes, claims in pods and mounts all say readOnly, and no field is misspelt."""
    for source in sources(list(given.documents), DRIVER):
        assert source["readOnly"] is True
        assert set(source) <= PERSISTENT_FIELDS
        assert ("volumeHandle" in source) or set(source) <= INLINE_FIELDS
    for pod in pod_specs(list(given.documents)):
        models = {
            volume["name"]
            for volume in pod.get("volumes", ())
            if "csi" in volume or volume.get("persistentVolumeClaim", {}).get("readOnly")
        }
        mounts = [mount for container in pod["containers"] for mount in container["volumeMounts"] if mount["name"] in models]
        assert mounts
        assert all(mount["readOnly"] is True for mount in mounts)


@every_example
def test_an_example_shows_where_credentials_go(given: Example) -> None:
    """The line for a private registry is there, as a comment that stands at its right place."""
    lines = re.findall(
        r"^( *)# (?:nodePublishSecretRef: \{name:|csi\.storage\.k8s\.io/node-publish-secret-name:)", given.text, re.MULTILINE
    )
    references = re.findall(r"^( *)reference: ", given.text, re.MULTILINE)
    assert len(lines) == len(references)
    for shown, reference in zip(lines, references, strict=True):
        assert len(shown) in {len(reference), len(reference) - 2}


@pytest.mark.parametrize("name", ["pod", "deployment", "vllm"])
def test_the_line_for_credentials_can_be_uncommented(name: str) -> None:
    """Without its comment sign the line is the volume's secret reference."""
    text = re.sub(r"^( *)# (nodePublishSecretRef: \{[^}]*\}).*$", r"\1\2", (FOLDER / f"{name}.yaml").read_text(), flags=re.MULTILINE)
    assert [source["nodePublishSecretRef"] for source in sources(list(parse(name, text).documents), DRIVER)] == [
        {"name": "registry-credentials"}
    ]


@every_example
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_knows_every_field(given: Example, version: str) -> None:
    """Core objects, and the pods inside the operators' objects, are valid in the versions of Kubernetes that are supported."""
    for document in given.documents:
        if _key(document) in OPERATORS:
            for pod in pod_specs(document):
                template = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "inside"}, "spec": pod}
                kubernetes_validate.validate(template, version, strict=True)
        else:
            kubernetes_validate.validate(document, version, strict=True)


@every_example
def test_the_operators_know_every_field(given: Example) -> None:
    """An operator's object fits the reduced schema of its kind, which knows no other fields."""
    for document in given.documents:
        if _key(document) in OPERATORS:
            _validator(*_key(document)).validate(document)
        else:
            assert "." not in document["apiVersion"].partition("/")[0] or document["apiVersion"].startswith("storage.k8s.io/")


def test_every_reduced_schema_is_used() -> None:
    """There is no schema for a kind that neither an example nor the chart has."""
    assert {_key(document) for found in examples() for document in found.documents} >= set(OPERATORS) - CHARTS


@pytest.mark.parametrize("key", [pytest.param(key, id=key[1]) for key in OPERATORS if key not in CHARTS])
def test_a_reduced_schema_refuses_what_it_does_not_know(key: tuple[str, str]) -> None:
    """A field too many, anywhere that the schema describes, is an error."""
    validator = _validator(*key)
    document = next(document for found in examples() for document in found.documents if _key(document) == key)
    open_maps = {"metadata", "labels", "annotations", "nodeLabels", "matchLabels", "requests", "limits", "namespaceSelector"}
    tried = 0
    for place, _ in _places(document["spec"], open_maps):
        broken = copy.deepcopy(document)
        target = broken["spec"]
        for step in place:
            target = target[step]
        target["misspelt"] = 1
        tried += not validator.is_valid(broken)
    assert tried >= 1
    assert validator.is_valid(document)
    assert not validator.is_valid({**document, "misspelt": 1})
    assert not validator.is_valid({**document, "spec": {**document["spec"], "misspelt": 1}})


def _places(node: Any, skipped: set[str], place: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if isinstance(node, dict):
        yield place, node
        for key, value in node.items():
            if key not in skipped:
                yield from _places(value, skipped, (*place, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _places(value, skipped, (*place, index))


@every_example
def test_containers_say_what_they_need(given: Example) -> None:
    """Every container requests CPU and memory, names a fixed image, and one that wants a GPU tolerates GPU nodes."""
    for pod in pod_specs(list(given.documents)):
        for container in pod["containers"]:
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert re.search(r":v?\d", container["image"])
            if "nvidia.com/gpu" in container["resources"].get("limits", {}):
                keys = {toleration["key"] for toleration in pod.get("tolerations", ())}
                flavored = any(document["kind"] == "ResourceFlavor" for document in given.documents)
                assert "nvidia.com/gpu" in keys or flavored


@every_example
def test_selectors_find_their_pods(given: Example) -> None:
    """What a controller, a Service, a pool or an anti-affinity selects by is a label of the example's own pods."""
    labels: list[dict[str, str]] = [
        found.get("metadata", {}).get("labels", {}) for found in mappings(list(given.documents)) if "containers" in found.get("spec", {})
    ]
    own = {"leaderworkerset.sigs.k8s.io/name": "vllm"}
    for found in mappings(list(given.documents)):
        wanted = found.get("selector") or found.get("labelSelector")
        if isinstance(wanted, dict):
            pairs = (wanted.get("matchLabels") or wanted).items()
            assert any(all((label | own).get(key) == value for key, value in pairs) for label in labels), wanted


def test_every_example_has_a_page_and_every_page_an_example() -> None:
    """deploy/examples and docs/examples name the same things, and the index lists each of them once."""
    names = {found.name for found in examples()}
    assert {path.stem for path in PAGES.glob("*.md")} - {"README"} == names
    index = (PAGES / "README.md").read_text()
    assert sorted(re.findall(r"\]\(([a-z-]+)\.md\)", index)) == sorted(names)


@every_example
def test_a_page_says_what_to_copy_and_what_to_look_at(given: Example) -> None:
    """Each page links its file, applies it, and shows a command to look with; each file names its page."""
    page = (PAGES / f"{given.name}.md").read_text()
    assert f"(../../deploy/examples/{given.name}.yaml)" in page
    assert f"kubectl apply -f deploy/examples/{given.name}.yaml" in page
    assert re.search(r"^kubectl (?:events|describe|logs|get|exec)", page, re.MULTILINE)
    assert given.text.splitlines()[0].endswith(f"docs/examples/{given.name}.md")


@every_example
def test_a_page_names_what_exists(given: Example) -> None:
    """Objects that a page's commands name are in the example, and links lead to files."""
    page = (PAGES / f"{given.name}.md").read_text()
    for kind, name in re.findall(r"\b(pod|job|deployment|daemonset|pv|pvc|jobset|isvc|lws)/([a-z0-9-]+)", page):
        own = {document["metadata"]["name"] for document in given.documents}
        assert any(name == known or name.startswith(f"{known}-") for known in own), f"{kind}/{name}"
    for link in re.findall(r"\]\(([^)#]+)", page):
        assert (PAGES / link).exists(), link


def test_the_reduced_schemas_are_json_schemas() -> None:
    """Each reduced schema is well-formed, and every level of it says its type, as API servers demand."""
    for key, schema in OPERATORS.items():
        jsonschema.Draft202012Validator.check_schema(_closed(schema))
        for found in _levels(schema):
            assert "type" in found or found.get("x-kubernetes-int-or-string"), (key, json.dumps(found)[:120])


def _levels(schema: Document) -> Iterator[Document]:
    yield schema
    for child in schema.get("properties", {}).values():
        yield from _levels(child)
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from _levels(schema[name])


def test_shell_lines_of_examples_parse() -> None:
    """What an example hands to a shell is valid shell."""
    tried = 0
    for found in examples():
        for pod in pod_specs(list(found.documents)):
            for container in pod["containers"]:
                command = container.get("command", [])
                if command[:2] == ["sh", "-c"]:
                    subprocess.run(["sh", "-n", "-c", command[2]], check=True)
                    tried += 1
    assert tried
