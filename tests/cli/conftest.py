"""The command line as a person uses it: the real engine over a real store, and a registry in this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from typer.testing import CliRunner

from csi_model.cli.main import app
from tests.fakes.registry import FakeRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from typer.testing import Result


@dataclass
class Person:
    """Someone with a home and a state directory of their own."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def run(self, *words: str) -> Result:
        """Run a command in this process; its exit code is the result's."""
        return CliRunner().invoke(app, list(words), env=self._environment())

    def json(self, *words: str) -> Any:
        """What a command that must succeed wrote with ``--json``."""
        result = self.run(*words, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command as a process."""
        return subprocess.Popen(
            [sys.executable, "-m", "csi_model", *words],
            env={**os.environ, **self._environment()},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _environment(self) -> dict[str, str]:
        return {"CSI_MODEL_STATE_DIR": str(self.state), "HOME": str(self.folder / "home"), "DOCKER_CONFIG": "", **self.environment}


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as fake:
        yield fake


@pytest.fixture
def person(tmp_path: Path) -> Iterator[Person]:
    yield Person(tmp_path)
    structlog.reset_defaults()  # commands configure it for their own process
