"""The gate (.ci/run): what it does, in which order."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]


def _program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def gate(tmp_path: Path) -> Callable[[], list[str]]:
    """Run the gate in a checkout where every program only writes down that it was called; returns the calls."""
    calls = tmp_path / "calls"
    for name in ("bin/make", "bin/go", ".ci/setup", ".venv/bin/python"):
        _program(tmp_path / name, f'echo "{Path(name).name} $*" >>{calls}')
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")

    def run() -> list[str]:
        environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
        subprocess.run([tmp_path / ".ci" / "run"], check=True, env=environment, capture_output=True)
        return calls.read_text().splitlines()

    return run


def test_helm_is_built_before_the_tests_that_need_it(gate: Callable[[], list[str]]) -> None:
    """On a cold machine with Go the chart's tests find a helm; the demo runs before the tests, whose count of passes is the last line."""
    assert gate() == ["setup e2e", "make demo", "make test", "python -m pytest -m gate e2e"]
