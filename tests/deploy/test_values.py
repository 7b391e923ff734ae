"""values.yaml, and what is made from it: the schema and the table of docs/install.md. None of this needs helm."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml

from csi_model import __version__
from deploy.chart import PAGE, SCHEMA, page, schema_text
from deploy.values import CHART, VALUES, read, schema
from tests.deploy.rendered import EVERY_SWITCH, SECOND_DRIVER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deploy.values import Value

VALIDATOR = jsonschema.Draft7Validator(schema())


def _named(values: tuple[Value, ...]) -> Iterator[tuple[str, Any]]:
    for value in values:
        if value.parts:
            yield from _named(value.parts)
        else:
            yield value.name, value.default


def test_the_schema_is_fresh() -> None:
    """values.schema.json is what values.yaml and the configuration's model give today; `make manifests` writes it."""
    assert SCHEMA.read_text() == schema_text()


def test_the_table_is_fresh() -> None:
    """So is the table in docs/install.md, and it has a row for every value."""
    text = PAGE.read_text()
    assert text == page(text)
    assert [name for name, _ in _named(read()) if f"| `{name}` |" not in text] == []


def test_nothing_of_the_file_is_lost() -> None:
    """What is read with comments is what YAML reads without: each key is in the schema with its own default."""
    found = dict(_named(read()))
    document = yaml.safe_load(VALUES.read_text())
    for name, default in found.items():
        below = document
        for key in name.split("."):
            below = below[key]
        assert below == default
    assert len(found) == sum(1 for line in VALUES.read_text().splitlines() if line.lstrip().startswith("# ")) - _other_comments()


def _other_comments() -> int:
    """Comment lines of values.yaml that describe no single value: the head, sections, and what `@schema` adds."""
    sections = [value for value in _all(read()) if value.parts]
    return 2 + len(sections) + VALUES.read_text().count("# @schema ")


def _all(values: tuple[Value, ...]) -> Iterator[Value]:
    for value in values:
        yield value
        yield from _all(value.parts)


@pytest.mark.parametrize("path", [VALUES, EVERY_SWITCH, SECOND_DRIVER], ids=lambda path: path.name)
def test_good_values_are_accepted(path: Any) -> None:
    """The defaults and the values that the other tests install with pass the schema."""
    VALIDATOR.validate(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"drivername": "x"}, []),
        ({"driverName": "-x"}, ["driverName"]),
        ({"driverName": "My.Driver"}, ["driverName"]),
        ({"driverName": "a..b"}, ["driverName"]),
        ({"driverName": "a.-b"}, ["driverName"]),
        ({"driverName": "x" * 64}, ["driverName"]),
        ({"driverName": "a-.b"}, ["driverName"]),
        ({"nameOverride": "my_models"}, ["nameOverride"]),
        ({"fullnameOverride": "models.v2"}, ["fullnameOverride"]),
        ({"kubeletRoot": "var/lib/kubelet"}, ["kubeletRoot"]),
        ({"kubeletRoot": "/var/lib/kubelet/"}, ["kubeletRoot"]),
        ({"image": {"repository": ""}}, ["image", "repository"]),
        ({"image": {"digest": "sha256:12"}}, ["image", "digest"]),
        ({"image": {"pullPolicy": "Sometimes"}}, ["image", "pullPolicy"]),
        ({"config": {"pull": {"activeBlobs": 0}}}, ["config", "pull", "activeBlobs"]),
        ({"config": {"csi": {"driverName": "other"}}}, ["config", "csi"]),
        ({"config": {"csi": {"kubeletRoot": "/other"}}}, ["config", "csi"]),
        ({"node": {"terminationGracePeriodSeconds": 20}}, ["node", "terminationGracePeriodSeconds"]),
        ({"node": {"maxUnavailable": "all"}}, ["node", "maxUnavailable"]),
        ({"node": {"maxUnavailable": 0}}, ["node", "maxUnavailable"]),
        ({"node": {"maxUnavailable": "0%"}}, ["node", "maxUnavailable"]),
        ({"node": {"maxUnavailable": "000%"}}, ["node", "maxUnavailable"]),
        ({"node": {"maxUnavailable": "101%"}}, ["node", "maxUnavailable"]),
        ({"node": {"tolerations": ["nvidia.com/gpu"]}}, ["node", "tolerations", 0]),
        ({"metrics": {"port": 0}}, ["metrics", "port"]),
        ({"controller": {"replicas": 0}}, ["controller", "replicas"]),
        (
            {"controller": {"storageClasses": [{"name": "Tiny_Model", "parameters": {"reference": "r/x:y"}}]}},
            ["controller", "storageClasses", 0, "name"],
        ),
        ({"controller": {"storageClasses": [{"name": "a", "parameters": {}}]}}, ["controller", "storageClasses", 0, "parameters"]),
        (
            {"controller": {"storageClasses": [{"name": "a", "parameters": {"reference": "r/x:y", "fast": "yes"}}]}},
            ["controller", "storageClasses", 0, "parameters"],
        ),
    ],
)
def test_wrong_values_are_refused_at_their_path(values: dict[str, Any], path: list[str | int]) -> None:
    """A misspelt key, an impossible number, and a configuration that the driver would refuse stop helm before it does anything."""
    (error,) = VALIDATOR.iter_errors(values)
    assert list(error.absolute_path) == path


@pytest.mark.parametrize(
    "values",
    [
        {"driverName": "x" * 63},
        {"driverName": "trial.csi-model.dev"},
        {"driverName": "a--b.4.c9d"},
        {"nameOverride": "4-models", "fullnameOverride": "models-v2"},
        {"node": {"maxUnavailable": 1}},
        {"node": {"maxUnavailable": "1%"}},
        {"node": {"maxUnavailable": "100%"}},
        {"controller": {"storageClasses": [{"name": "tiny.v1-model", "parameters": {"reference": "r/x:y"}}]}},
    ],
)
def test_what_kubernetes_takes_is_accepted(values: dict[str, Any]) -> None:
    """Names and numbers at the edge of what an API server takes."""
    VALIDATOR.validate(values)


def test_the_chart_is_of_this_version() -> None:
    """The chart's appVersion, which is the image's default tag, is the driver's version."""
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == __version__


def test_the_schema_allows_what_helm_adds() -> None:
    """As part of another chart it is given `global`; and the schema is valid by its own rules."""
    VALIDATOR.validate({"global": {"anything": 1}})
    jsonschema.Draft7Validator.check_schema(json.loads(SCHEMA.read_text()))
