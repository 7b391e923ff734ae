"""docs/kubernetes.md says what the code does, where that can be compared."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from csi_model.config.model import Config
from csi_model.csi.node import wait_seconds
from csi_model.kube import trouble
from csi_model.kube.reasons import REASONS, reason_of
from e2e.kubernetes.examples import ROOT

PAGE = (ROOT / "docs" / "kubernetes.md").read_text()
_DEADLINE = 120.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 122.0


def _table(heading: str) -> list[list[str]]:
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in row] for row in rows]


def _outlived(seconds: float) -> tuple[int, float]:
    """How many calls a pull outlives, and the longest pause among those that its end may fall into."""
    hold, calls, pause, at, longest = wait_seconds(_DEADLINE), 0, _FIRST_PAUSE, 0.0, 0.0
    while at + hold < seconds:
        calls, longest = calls + 1, pause
        at += hold + pause
        pause = min(pause * 2, _LONGEST_PAUSE)
    return calls, longest


def test_the_table_of_waits_is_what_the_driver_and_kubelet_do() -> None:
    """Calls and pauses in the table follow from the driver's wait and kubelet's backoff."""
    rows = [(re.search(r"(\d+) (s|min)", time), calls, pause) for time, calls, pause in _table("Waiting for a pull")]
    told = [(int(found[1]) * (60 if found[2] == "min" else 1), calls, pause) for found, calls, pause in rows if found]
    assert len(told) == 5
    for seconds, calls, pause in told:
        outlived, longest = _outlived(seconds)
        assert calls == str(outlived)
        assert pause == ("none" if not longest else f"{longest:g} s")


def test_every_reason_of_an_event_is_explained() -> None:
    """The table of events has each reason that the driver gives to pods, and no reason that it does not give."""
    said = {name for row in _table("What the events say") for name in re.findall(r"`([A-Z][A-Za-z]+)`", row[0])}
    given = {reason for reason in REASONS.values() if reason} | {"DriverError", "Pulling", "PullProgress", "Pulled", "Mounted"}
    assert reason_of(RuntimeError()) == "DriverError"
    assert said - {"FailedMount", "Aborted"} == given


def test_every_reason_of_an_event_on_the_node_is_explained() -> None:
    """The table of the Node's events has each reason that the driver's code gives to its Node."""
    rows = re.findall(r"^\| (`[A-Z].*?) \|", PAGE.partition("| event on the Node |")[2].partition("\n\n")[0], re.MULTILINE)
    given = {word for word in _words(trouble.__file__) if re.fullmatch(r"[A-Z][a-z]+[A-Z][a-z]+", word)}
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == given


def _words(path: str) -> set[str]:
    """Strings of a module's code."""
    nodes = ast.walk(ast.parse(Path(path).read_text()))
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_the_defaults_are_those_of_the_configuration() -> None:
    """Durations and numbers that the page calls defaults are the model's."""
    config = Config()
    assert config.views.idle == config.pull.linger == 600
    assert PAGE.count("10 minutes") >= 2
    assert f"publishes ({config.csi.workers - 32})" in PAGE
    assert f"`{config.csi.driver_name}/agent-not-ready`" in PAGE


def test_links_lead_somewhere() -> None:
    """Every relative link of the page names a file."""
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", PAGE)
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
