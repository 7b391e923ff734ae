"""What helm says after an installation: the commands in it can be pasted."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import kubernetes_validate
import pytest
import yaml

from deploy.chart import template
from deploy.values import CHART
from tests.deploy.rendered import EVERY_SWITCH, needs_helm

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs_helm

_AS_AN_OBJECT = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: notes}
data: {text: {{ include "notes" . | toJson }}}
"""
_KUBECTL = """#!/bin/sh
[ "$1" != apply ] || cat > "$APPLIED"
"""


@pytest.fixture(params=[(), ("--values", str(EVERY_SWITCH))], ids=["defaults", "every switch"])
def notes(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """The notes, which ``helm template`` leaves out, by way of an object that it does not."""
    chart = tmp_path / "chart"
    shutil.copytree(CHART, chart)
    text = (chart / "templates" / "NOTES.txt").read_text()
    (chart / "templates" / "NOTES.txt").unlink()
    (chart / "templates" / "_notes.tpl").write_text('{{ define "notes" }}' + text + "{{ end }}")
    (chart / "templates" / "notes.yaml").write_text(_AS_AN_OBJECT)
    rendered: str = yaml.safe_load(template("--show-only=templates/notes.yaml", *request.param, chart=chart))["data"]["text"]
    return rendered


def test_the_first_pod_can_be_pasted(tmp_path: Path, notes: str) -> None:
    """From ``kubectl apply`` on, a shell that reads the text line by line comes to an end, and has applied a valid pod."""
    pasted = re.search(r"^kubectl apply.*?(?=\n\n)", notes, re.DOTALL | re.MULTILINE)
    assert pasted is not None, notes
    kubectl, applied = tmp_path / "kubectl", tmp_path / "applied"
    kubectl.write_text(_KUBECTL)
    kubectl.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "APPLIED": str(applied)}
    done = subprocess.run(["bash"], input=f"{pasted[0]}\necho at the end\n", env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("at the end\n", "")
    pod = yaml.safe_load(applied.read_text())
    kubernetes_validate.validate(pod, "1.36", strict=True)
    assert pod["spec"]["volumes"][0]["csi"]["readOnly"] is True
