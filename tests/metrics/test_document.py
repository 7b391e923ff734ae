"""docs/metrics.md and the dashboard: fresh, and about metrics that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from csi_model.metrics.document import example, render

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "deploy" / "charts" / "csi-model" / "files" / "dashboard.json"
NAME = re.compile(r"\b(?:csi_model|process)_\w+")


def _alerts() -> list[dict[str, Any]]:
    (block,) = re.findall(r"```yaml\n(.*?)```", render(), re.DOTALL)
    (group,) = yaml.safe_load(block)["spec"]["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def _dashboard() -> dict[str, Any]:
    board: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return board


def _expressions() -> Iterator[str]:
    for panel in _dashboard()["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    yield from (variable["definition"] for variable in _dashboard()["templating"]["list"] if "definition" in variable)
    yield from (rule["expr"] for rule in _alerts())


def test_the_page_is_fresh() -> None:
    """The committed page is what the metrics give today; `make docs` writes it."""
    assert (ROOT / "docs" / "metrics.md").read_text() == render()


def test_every_metric_is_on_the_page_with_its_meaning() -> None:
    """Each family has its line, under the name by which it is queried."""
    page = render()
    for family in example():
        assert f"| `{family.name}" in page
        assert family.documentation
        assert family.documentation in page


@pytest.mark.parametrize("expression", list(_expressions()))
def test_what_is_queried_exists(expression: str) -> None:
    """The dashboard and the alerts name no metric and no label value that the driver does not have."""
    samples = [sample for family in example() for sample in family.samples]
    names = set(NAME.findall(expression))
    assert names
    assert names <= {sample.name for sample in samples}
    kinds = {sample.labels["kind"] for sample in samples if sample.name in names and "kind" in sample.labels}
    for wanted in re.findall(r'kind=~?"([^"]+)"', expression):
        assert set(wanted.split("|")) <= kinds


def test_no_label_can_grow_without_bound() -> None:
    """Labels are of a few kinds, none of which pods' authors can fill at will (registries are bounded where they are counted)."""
    labels = {name for family in example() for sample in family.samples for name in sample.labels}
    assert labels == {"code", "forced", "kind", "le", "method", "python", "registry", "rung", "version"}


def test_the_dashboard_is_whole() -> None:
    """Each panel has a title, a unit, a place of its own and an id of its own, and asks the data source that the person chose."""
    panels = _dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}


def test_alerts_say_what_to_do() -> None:
    """Three rules, each with a summary that names the node and an action."""
    rules = _alerts()
    assert len(rules) == 3
    for rule in rules:
        assert "$labels.node" in rule["annotations"]["summary"]
        assert rule["annotations"]["action"]
