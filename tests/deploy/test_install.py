"""docs/install.md: its commands install a driver that can run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "install.md"
_BLOCKS = [block for block in re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE) if "helm install " in block]


def test_there_are_recipes() -> None:
    """One for a cluster's driver, one for a second beside it."""
    assert len(_BLOCKS) == 2


@pytest.mark.parametrize("block", _BLOCKS)
def test_a_recipe_names_an_image_and_a_namespace_that_admits_it(block: str) -> None:
    """Each installation says which image, for there is no default, into a namespace that is made, and labelled for privileged pods."""
    (install,) = re.findall(r"helm install .*", block.replace("\\\n", " "))
    assert "--set image.repository=" in install
    (namespace,) = re.findall(r"--namespace (\S+)", install)
    made = block.partition("helm install ")[0].splitlines()
    assert f"kubectl create namespace {namespace}" in made
    assert f"kubectl label namespace {namespace} pod-security.kubernetes.io/enforce=privileged" in made
