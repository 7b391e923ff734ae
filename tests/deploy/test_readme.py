"""The README's commands are valid before any cluster sees them: run here with a kubectl and a helm that only take note."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import kubernetes_validate
import pytest
import yaml

from csi_model.config.load import parse
from csi_model.csi.context import VolumeContext, parse_request
from e2e.kubernetes.examples import ROOT
from e2e.kubernetes.readme import README, blocks, script

if TYPE_CHECKING:
    from pathlib import Path

_NOTE = """#!/bin/sh
echo "$(basename "$0") $*" >> "$NOTES/calls"
case "$*" in *" -"|*" - "*) cat > "$NOTES/$(basename "$0").yaml" ;; esac
"""
_MINE = {
    "IMAGE": "registry.example:5000/tools/csi-model:9.8.7",
    "SHELL_IMAGE": "busybox:9",
    "MODEL": "registry.example:5001/a/b:c",
    "PLAIN_HTTP": "true",
}


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """Where the section, run in a folder with the README, leaves what it asked for."""
    for name in ("kubectl", "helm"):
        program = tmp_path / name
        program.write_text(_NOTE)
        program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "NOTES": str(tmp_path), **_MINE}
    subprocess.run(["bash", "-c", script()], cwd=ROOT, env=environment, check=True, capture_output=True, timeout=30)
    return tmp_path


def test_the_first_block_names_every_variable() -> None:
    """All that a reader must say is asked for in the first block, with a default, and used afterwards."""
    first, *others = blocks()
    named = set(re.findall(r'^export ([A-Z_]+)="\$\{\1:-[^}]+\}"', first, re.MULTILINE))
    used = set(re.findall(r"\$\{?([A-Z_]+)", "".join(others)))
    assert named == used == set(_MINE)


def test_helm_gets_the_image_and_a_valid_configuration(notes: Path) -> None:
    """The values that the section writes are the reader's image and a configuration that the driver accepts."""
    values = yaml.safe_load((notes / "helm.yaml").read_text())
    assert values["image"] == {"repository": "registry.example:5000/tools/csi-model", "tag": "9.8.7"}
    config = parse(yaml.safe_dump(values["config"]), where="README")
    assert config.registries["registry.example:5001"].plain_http


def test_the_pod_is_valid(notes: Path) -> None:
    """The section's pod is one to Kubernetes, and its volume one to the driver."""
    pod = yaml.safe_load((notes / "kubectl.yaml").read_text())
    kubernetes_validate.validate(pod, "1.36", strict=True)
    source = pod["spec"]["volumes"][0]["csi"]
    assert source["readOnly"] is True
    assert str(parse_request(VolumeContext.parse(source["volumeAttributes"]).attributes, layouts=()).reference) == _MINE["MODEL"]


def test_what_is_made_is_taken_away(notes: Path) -> None:
    """The section deletes its pod, uninstalls its release and deletes its namespace, in this order."""
    calls = (notes / "calls").read_text().splitlines()
    last = [" ".join(call.split()[:3]) for call in calls[-3:]]
    assert last == ["kubectl delete pod", "helm uninstall csi-model", "kubectl delete namespace"]
    assert calls[0].startswith("helm install csi-model deploy/charts/csi-model --namespace csi-model ")


def test_links_of_the_readme_lead_somewhere() -> None:
    """Every relative link of the README names a file of the project."""
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", README.read_text())
    assert [link for link in links if not (ROOT / link).exists()] == []
