"""Steps: armed by the environment, deadly at the right moment, and known by name."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import csi_model
from csi_model.steps import STEPS, step

_CALL = re.compile(r"\bstep\(\s*[\"']([^\"']+)[\"']")


def _run(armed: str, program: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"from csi_model.steps import step\n{program}"]
    return subprocess.run(command, env={**os.environ, "CSI_MODEL_KILL_AT": armed}, check=False, capture_output=True, text=True, timeout=60)


def test_an_unarmed_step_does_nothing() -> None:
    """Without the environment variable every step passes."""
    for name in STEPS:
        step(name)


def test_an_armed_step_kills_at_once_and_without_cleanup() -> None:
    """The process dies by SIGKILL at the step and nowhere before; not even ``finally`` runs."""
    died = _run(
        "commit.renamed",
        "try:\n step('commit.synced'); print('passed', flush=True); step('commit.renamed')\nfinally: print('cleaned', flush=True)",
    )
    assert (died.returncode, died.stdout) == (-signal.SIGKILL, "passed\n")


def test_the_nth_passage_can_be_named() -> None:
    """``NAME:2`` lets the first passage through and dies at the second."""
    died = _run("add.synced:2", "for n in range(3):\n print(n, flush=True)\n step('add.synced')")
    assert (died.returncode, died.stdout) == (-signal.SIGKILL, "0\n1\n")


def test_an_unknown_step_is_refused_at_start() -> None:
    """A misspelt step cannot make a crash test pass by never dying."""
    refused = _run("commit.renmaed", "")
    assert refused.returncode == 1
    assert "which is no step" in refused.stderr


def test_code_names_only_known_steps() -> None:
    """Every step that the code passes is in the documented list."""
    sources = Path(csi_model.__file__).parent.rglob("*.py")
    named = {name for source in sources for name in _CALL.findall(source.read_text())}
    assert "commit.renamed" in named  # the search finds what there is
    assert named <= set(STEPS)
